#!lua flags=allow-oom
-- commit: appends a step's tokens for a whole batch, publishes them, ends what has finished, renews the lease.
--
-- The answers are tested in this order: GONE · OK (the finishing commit of this very grant and end, resent) · ENDED ·
-- FENCED · past the deadline (ENDED, or HELD in a hold; nothing is appended) · BEHIND · CONFLICT · HELD or OK. Everything
-- is read and checked before the first write. Without entries it is a heartbeat.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 incarnation · 3 inbox seen · 4 whether to list what is held (0, 1)
--       5 entries: uint32 count, then for each: text id, uint32 epoch, text nonce, text error, uint32 count of
--       sequences, for each: uint32 sequence, uint32 offset, text ids, text log-probabilities, text finish
-- Reply uint32 count, then for each entry: code (1 letter), uint32 count of lengths, lengths, uint32 epoch, text end;
--       mail; uint32 held, text digest, uint32 whether the list follows, then for each: text id, text EPOCH:NONCEHEX

local CODES = { GONE = 'G', ENDED = 'E', FENCED = 'F', BEHIND = 'B', CONFLICT = 'C', HELD = 'H', OK = 'O' }
local incarnation, seen, lists_held = ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'

-- --- reading and checking --------------------------------------------------------------------------------------------

local function unpack_entries(packed)
  local count, at = struct.unpack('<I4', packed)
  local entries = {}
  for i = 1, count do
    local id, epoch, nonce, message, num_sequences, after = struct.unpack('<I4c0I4I4c0I4c0I4', packed, at)
    local sequences = {}
    at = after
    for j = 1, num_sequences do
      local sequence, offset, ids, logprobs, finish, next_at = struct.unpack('<I4I4I4c0I4c0I4c0', packed, at)
      sequences[j] = { sequence = sequence, offset = offset, ids = ids, logprobs = logprobs, finish = finish,
        last = offset + #ids / 4 }
      at = next_at
    end
    entries[i] = { id = id, epoch = epoch, nonce = nonce, message = message, sequences = sequences, r = load(id) }
  end
  return entries
end

local function check(e)
  local named = #e.sequences > 1 and {}
  for _, s in ipairs(e.sequences) do
    if named and named[s.sequence] then
      invalid(e.id .. ': sequence ' .. s.sequence .. ' is named twice')
    elseif named then
      named[s.sequence] = true
    end
    if s.sequence >= e.r.n then
      invalid(e.id .. ' has ' .. e.r.n .. ' sequences, there is no sequence ' .. s.sequence)
    end
    local count = s.last - s.offset
    if #s.logprobs ~= count * e.r.logprob_bytes then
      invalid(e.id .. ': ' .. #s.logprobs .. ' bytes of log-probabilities for ' .. count .. ' tokens, but each has '
        .. e.r.logprob_bytes)
    end
  end
end

-- --- deciding --------------------------------------------------------------------------------------------------------

-- Whether this entry, sent before, is what ended the request.
local function is_ending_commit(e)
  local r = e.r
  if r.last_epoch ~= e.epoch or r.last_nonce ~= e.nonce then
    return false
  end
  local told = unpack_end(r['end'])
  if e.message ~= '' then
    return told.state == 'FAILED' and told.message == e.message
  end
  for _, s in ipairs(e.sequences) do
    if s.finish ~= told.finishes[s.sequence + 1] or s.last ~= told.offsets[s.sequence + 1] then
      return false
    end
  end
  return #e.sequences > 0
end

local function is_behind(e, lengths)
  for _, s in ipairs(e.sequences) do
    if s.offset > lengths[s.sequence + 1] then
      return true
    end
  end
  return false
end

-- The log holds other ids, goes on after this finish, or had finished before these ids.
local function conflicts(e, lengths, finishes)
  for _, s in ipairs(e.sequences) do
    local length, finish = lengths[s.sequence + 1], finishes[s.sequence + 1]
    if s.last > length and finish ~= '' then
      return true
    end
    if s.last < length and s.finish ~= '' then
      return true
    end
    if first_difference(e.r, s.sequence, s.offset, length, s.ids) then
      return true
    end
  end
  return false
end

-- --- writing ---------------------------------------------------------------------------------------------------------

local function pack_added(s, length, logprob_bytes, finish)
  local known = length - s.offset
  local ids, logprobs = s.ids:sub(known * 4 + 1), s.logprobs:sub(known * logprob_bytes + 1)
  return struct.pack('<I4I4I4c0I4c0I4c0', s.sequence, length, #ids, ids, #logprobs, logprobs, #finish, finish)
end

-- Appends every sequence. Returns what to publish, whether there were new ids, whether there was a new finish, and
-- whether one was left out because of the hold.
local function append_all(e, lengths, finishes, may_end)
  local added, has_ids, has_finish, is_held = {}, false, false, false
  for _, s in ipairs(e.sequences) do
    local i = s.sequence + 1
    local length, is_new = lengths[i], s.finish ~= '' and finishes[i] == ''
    local finish = is_new and may_end and s.finish or ''
    is_held = is_held or (is_new and not may_end)
    if s.last > length or finish ~= '' then
      added[#added + 1] = pack_added(s, length, e.r.logprob_bytes, finish)
      lengths[i] = append(e.r, s.sequence, length, s.offset, s.ids, s.logprobs)
      has_ids = has_ids or s.last > length
    end
    if finish ~= '' then
      finishes[i], has_finish = finish, true
    end
  end
  return added, has_ids, has_finish, is_held
end

local function all_finished(finishes)
  for _, finish in ipairs(finishes) do
    if finish == '' then
      return false
    end
  end
  return true
end

-- Notes what has changed besides the logs, in one write.
local function note(r, has_ids, has_finish, finishes)
  if has_ids and r.fruitless > 0 then
    redis.call('HSET', request_key(r.id), 'fruitless', 0, 'suspect', 0)
  end
  if has_finish then
    r.finishes = pack_texts(finishes)
    redis.call('HSET', request_key(r.id), 'finishes', r.finishes)
  end
end

local function write(e, lengths, finishes)
  local r, may_end = e.r, not held_back(e.r)
  local added, has_ids, has_finish, is_held = append_all(e, lengths, finishes, may_end)
  note(r, has_ids, has_finish, finishes)
  if may_end and (e.message ~= '' or all_finished(finishes)) then
    end_request(r, e.message ~= '' and 'FAILED' or 'DONE', { message = e.message, by_owner = true, sequences = added })
  elseif #added > 0 then
    publish(r, added, '')
  end
  return (is_held or (e.message ~= '' and not may_end)) and 'HELD' or 'OK', lengths
end

-- --- one entry -------------------------------------------------------------------------------------------------------

local NONE = {}

local function past_deadline(r)
  if held_back(r) then
    return 'HELD', (log_lengths(r))
  end
  end_request(r, 'EXPIRED', { message = "the request's timeout is over", by_owner = true })
  return 'ENDED', unpack_end(r['end']).offsets
end

local function commit_entry(e)
  local r = e.r
  if not r then
    return 'GONE', NONE
  end
  if is_terminal(r) then
    whole(r)
    return is_ending_commit(e) and 'OK' or 'ENDED', unpack_end(r['end']).offsets
  end
  if r.state ~= 'RUNNING' or r.epoch ~= e.epoch or r.nonce ~= e.nonce then
    return 'FENCED', NONE
  end
  if r.deadline and r.deadline <= NOW then
    return past_deadline(r)
  end
  local lengths, finishes = log_lengths(r), finishes_of(r)
  if is_behind(e, lengths) then
    return 'BEHIND', lengths
  end
  if conflicts(e, lengths, finishes) then
    return 'CONFLICT', NONE
  end
  return write(e, lengths, finishes)
end

local function pack_result(e)
  local code, lengths = commit_entry(e)
  local packed_end = e.r and e.r['end'] or ''
  local epoch = code == 'FENCED' and e.r.epoch or 0
  if #lengths == 1 then
    return struct.pack('<c1I4I4I4I4c0', CODES[code], 1, lengths[1], epoch, #packed_end, packed_end)
  end
  local parts = { struct.pack('<c1I4', CODES[code], #lengths) }
  for i, length in ipairs(lengths) do
    parts[i + 1] = struct.pack('<I4', length)
  end
  parts[#parts + 1] = struct.pack('<I4I4c0', epoch, #packed_end, packed_end)
  return table.concat(parts)
end

local function pack_held()
  local count, digest = redis.call('HLEN', held_key(incarnation)), held_digest(incarnation)
  local packed = struct.pack('<I4I4c0I4', count, #digest, digest, lists_held and 1 or 0)
  return lists_held and packed .. pack_texts(redis.call('HGETALL', held_key(incarnation))) or packed
end

local entries = unpack_entries(ARGV[5])
local named = {}
for _, e in ipairs(entries) do
  if named[e.id] then
    invalid(e.id .. ' is named twice')
  end
  named[e.id] = true
  if e.r then
    check(e)
  end
end

renew_leader(incarnation)
local results = { struct.pack('<I4', #entries) }
for i, e in ipairs(entries) do
  results[i + 1] = pack_result(e)
end
return answer(table.concat(results) .. mail(incarnation, seen) .. pack_held())
