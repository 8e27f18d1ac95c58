-- One request: its record, its logs, how it is created, read and deleted.
--
-- A record in Lua is a table with `id` and the fields by name that `load` reads, and `whole` adds. Numbers are numbers;
-- absent ones are nil. A commit looks at hundreds of records, and reads only what it needs of each.

local SCHEMA = 1
local OTHER_FIELDS = {
  'owner', 'last_epoch', 'last_nonce', 'end', 'tenant', 'submitted',
  'attempts', 'number', 'claimed', 'priority', 'prompt_tokens', 'max_tokens', 'on_disconnect', 'grace_ms',
  'retention_ms', 'max_queue_ms', 'keep_ms', 'charged', 'bytes', 'idempotency', 'digest', 'outputs',
}
local NUMBERS = {
  last_epoch = true, submitted = true, attempts = true, number = true, claimed = true, priority = true,
  prompt_tokens = true, max_tokens = true, grace_ms = true, retention_ms = true, max_queue_ms = true, keep_ms = true,
  charged = true, bytes = true, outputs = true,
}

local function request_key(id)
  return BASE .. 'request:' .. id
end

local function log_key(id, sequence)
  return BASE .. 'log:' .. id .. ':' .. sequence
end

local function logprobs_key(id, sequence)
  return BASE .. 'logprobs:' .. id .. ':' .. sequence
end

local function idempotency_key(tenant, name)
  return BASE .. 'idempotency:' .. #tenant .. ':' .. tenant .. ':' .. name
end

-- Adds the fields that a commit does without.
local function whole(r)
  if r.number == nil then
    local values = redis.call('HMGET', request_key(r.id), unpack(OTHER_FIELDS))
    for i, field in ipairs(OTHER_FIELDS) do
      if NUMBERS[field] then
        r[field] = tonumber(values[i] or nil)
      else
        r[field] = values[i] or ''
      end
    end
  end
  return r
end

local function is_terminal(r)
  return r.state ~= 'WAITING' and r.state ~= 'RUNNING'
end

-- Whether a request may be older than the hold that is on: nobody may claim or end it but by a restore.
local function held_back(r)
  return IN_HOLD and r.fresh ~= IDENTITY
end

-- --- texts in a row: uint32 length, bytes ----------------------------------------------------------------------------

local function pack_texts(texts)
  local parts = {}
  for i, value in ipairs(texts) do
    parts[i] = struct.pack('<I4c0', #value, value)
  end
  return table.concat(parts)
end

local function unpack_texts(packed, count, at)
  local texts = {}
  for i = 1, count do
    texts[i], at = struct.unpack('<I4c0', packed, at)
  end
  return texts, at
end

local function finishes_of(r)
  if r.finishes == '' then
    local none = {}
    for i = 1, r.n do
      none[i] = ''
    end
    return none
  end
  return unpack_texts(r.finishes, r.n, 1)
end

-- --- ends: text state, uint32 n, n offsets, n finishes, text error, uint64 instant -----------------------------------

local function pack_end(state, offsets, finishes, message, instant)
  local parts = { struct.pack('<I4c0I4', #state, state, #offsets) }
  for i, offset in ipairs(offsets) do
    parts[i + 1] = struct.pack('<I4', offset)
  end
  return table.concat(parts) .. pack_texts(finishes) .. struct.pack('<I4c0I8', #message, message, instant)
end

local function unpack_end(packed)
  local told = { offsets = {} }
  local n, at
  told.state, n, at = struct.unpack('<I4c0I4', packed)
  for i = 1, n do
    told.offsets[i], at = struct.unpack('<I4', packed, at)
  end
  told.finishes, at = unpack_texts(packed, n, at)
  told.message, told.instant = struct.unpack('<I4c0I8', packed, at)
  return told
end

-- --- submissions -----------------------------------------------------------------------------------------------------

-- What scripts decide on; the payload at the end is never opened here.
local function unpack_submission(packed)
  local version, at = struct.unpack('<I4', packed)
  if version ~= SCHEMA then
    invalid('a submission of schema ' .. version .. ', but this lane knows schema ' .. SCHEMA)
  end
  local s = { packed = packed }
  local priority, logprobs, has_timeout, timeout, store, has_key, background, has_prompt_log
  s.id, s.drawn, s.tenant, priority, s.n, s.prompt_tokens, s.max_tokens, logprobs, has_timeout, timeout, at =
    struct.unpack('<I4c0I4c0I4c0I4I4I4I4I4I4I8', packed, at)
  s.max_queue_ms, s.on_disconnect, s.grace_ms, s.retention_ms, store, has_key, s.key, s.digest, background,
    has_prompt_log, s.bytes = struct.unpack('<I8I4c0I8I8I4I4I4c0I4c0I4I4I4', packed, at)
  s.priority = priority - 100
  s.logprob_bytes = 8 * logprobs
  s.timeout_ms = has_timeout == 1 and timeout or nil
  s.keep_ms = store == 1 and s.retention_ms or UNSTORED_MS
  s.key = has_key == 1 and s.key or nil
  s.background = background == 1
  s.outputs = s.n - has_prompt_log
  if s.n < 1 or s.n > MAX_BATCH then
    invalid('a request has 1 to ' .. MAX_BATCH .. ' sequences, but ' .. s.id .. ' has ' .. s.n)
  end
  return s
end

-- text submission, uint64 submitted, uint32 whether there is a deadline, uint64 deadline
local function pack_info(r)
  local packed = redis.call('HGET', request_key(r.id), 'submission')
  return struct.pack('<I4c0I8I4I8', #packed, packed, r.submitted, r.deadline and 1 or 0, r.deadline or 0)
end

-- --- life ------------------------------------------------------------------------------------------------------------

local function each_key(r, act)
  act(request_key(r.id))
  for sequence = 0, r.n - 1 do
    act(log_key(r.id, sequence))
    if r.logprob_bytes > 0 then
      act(logprobs_key(r.id, sequence))
    end
  end
  if r.idempotency ~= '' and redis.call('GET', r.idempotency) == r.id then
    act(r.idempotency)
  end
end

-- Deletes a terminal request.
local function vanish(r)
  each_key(whole(r), function(name)
    redis.call('DEL', name)
  end)
end

-- A mark that a request was deleted on demand: what others remember of it is not taken back, as long as its record would
-- have stayed. Value: the instants of deletion and of the mark's end.
local function stay_forgotten(r)
  redis.call('SET', key('forgotten:' .. r.id), text(NOW) .. ' ' .. text(r.expires), 'PX', text(r.expires - NOW))
end

-- The instant at which a request was deleted on demand; 0 where it was not, or long ago.
local function forgotten_at(id)
  local mark = redis.call('GET', key('forgotten:' .. id))
  local deleted, ends = (mark or '0 0'):match('(%d+) (%d+)')
  return tonumber(ends) > NOW and tonumber(deleted) or 0
end

-- Record, logs and idempotency key of a terminal request run out together. `expires` is compared as well, so that
-- its end does not depend on when the server gets round to deleting.
local function keep_for_a_while(r)
  r.expires = NOW + r.keep_ms
  redis.call('HSET', request_key(r.id), 'expires', text(r.expires))
  each_key(r, function(name)
    redis.call('PEXPIRE', name, math.max(1, r.keep_ms)) -- zero would delete it under this script's hands
  end)
end

-- The record with the fields of a commit, or nil where there is none (any more).
local function load(id)
  local values = redis.call('HMGET', request_key(id), 'state', 'epoch', 'nonce', 'n', 'deadline', 'fresh', 'listeners',
    'finishes', 'fruitless', 'logprob_bytes', 'expires')
  if not values[1] then
    return nil
  end
  local r = {
    id = id, state = values[1], epoch = tonumber(values[2]), nonce = values[3], n = tonumber(values[4]),
    deadline = tonumber(values[5]), fresh = values[6], listeners = values[7], finishes = values[8],
    fruitless = tonumber(values[9]), logprob_bytes = tonumber(values[10]), expires = tonumber(values[11] or nil),
  }
  if r.expires and r.expires <= NOW then
    vanish(r)
    return nil
  end
  return r
end

local function load_whole(id)
  local r = load(id)
  return r and whole(r)
end

-- A new record in no queue yet. `fresh` is the identity under which its id was drawn, or empty: it may be older than
-- a hold.
local function create(s, submitted, deadline, fresh)
  local number = redis.call('HINCRBY', LANE, 'next_number', 1)
  local idempotency = s.key and idempotency_key(s.tenant, s.key) or ''
  redis.call('HSET', request_key(s.id), 'schema', SCHEMA, 'submission', s.packed, 'state', 'WAITING', 'epoch', 0,
    'nonce', '', 'owner', '', 'attempts', 0, 'fruitless', 0, 'suspect', 0, 'passed_over', 0, 'prefer', '',
    'prefer_until', 0, 'number', number, 'fresh', fresh, 'listeners', '',
    'finishes', '', 'n', s.n, 'claimed', 0, 'tenant', s.tenant, 'priority', s.priority, 'prompt_tokens', s.prompt_tokens, 'max_tokens',
    s.max_tokens, 'logprob_bytes', s.logprob_bytes, 'on_disconnect', s.on_disconnect, 'grace_ms', text(s.grace_ms),
    'retention_ms', text(s.retention_ms), 'max_queue_ms', text(s.max_queue_ms), 'keep_ms', text(s.keep_ms), 'charged',
    0, 'bytes', s.bytes, 'submitted', text(submitted), 'deadline', deadline and text(deadline) or '', 'digest',
    s.digest, 'idempotency', idempotency, 'outputs', s.outputs)
  if idempotency ~= '' then
    redis.call('SET', idempotency, s.id, 'NX')
  end
  return load_whole(s.id)
end

-- --- logs ------------------------------------------------------------------------------------------------------------

-- Tokens of each sequence, and their sum.
local function log_lengths(r)
  local lengths, total = {}, 0
  for i = 1, r.n do
    lengths[i] = redis.call('STRLEN', log_key(r.id, i - 1)) / 4
    total = total + lengths[i]
  end
  return lengths, total
end

-- Bytes first … last of a string from 0, last excluded.
local function slice(name, first, last)
  if last <= first then
    return ''
  end
  return redis.call('GETRANGE', name, first, last - 1)
end

-- Packs the logs from given offsets on, at most `budget` bytes: for each sequence uint32 length of the whole log,
-- uint32 offset, text ids, text log-probabilities, text finish. A terminal log ends where it was frozen.
-- Returns the packed logs and their size.
local function pack_logs(r, offsets, budget)
  local lengths, ends = log_lengths(r), is_terminal(r) and unpack_end(r['end']).offsets or {}
  local finishes, parts, size = finishes_of(r), {}, 0
  for i = 1, r.n do
    lengths[i] = math.min(lengths[i], ends[i] or math.huge)
    local from = math.min(offsets[i] or 0, lengths[i])
    local room = math.max(0, math.floor((budget - size) / (4 + r.logprob_bytes)))
    local to = math.min(lengths[i], from + room)
    local ids = slice(log_key(r.id, i - 1), from * 4, to * 4)
    local logprobs = slice(logprobs_key(r.id, i - 1), from * r.logprob_bytes, to * r.logprob_bytes)
    parts[i] = struct.pack('<I4I4I4c0I4c0I4c0', lengths[i], from, #ids, ids, #logprobs, logprobs, #finishes[i],
      finishes[i])
    size = size + #parts[i]
  end
  return struct.pack('<I4', r.n) .. table.concat(parts), size
end

-- Whether `ids`, which begin at token `offset`, agree with a log of `length` tokens as far as it reaches. Returns the
-- first token at which they differ, or nil.
local function first_difference(r, sequence, offset, length, ids)
  local overlap = math.min(#ids / 4, length - offset)
  if overlap <= 0 then
    return nil
  end
  local held = slice(log_key(r.id, sequence), offset * 4, (offset + overlap) * 4)
  if held == ids:sub(1, overlap * 4) then
    return nil
  end
  local low, high = 0, overlap -- they agree before `low`, and differ before `high`
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if held:sub(1, middle * 4) == ids:sub(1, middle * 4) then
      low = middle
    else
      high = middle
    end
  end
  return offset + low
end

-- Appends what lies beyond the log. Returns the log's new length. Log-probabilities that a restore does not know are
-- filled up with zero bytes: they stay where their token is.
local function append(r, sequence, length, offset, ids, logprobs)
  local known, count = length - offset, #ids / 4
  if count <= known then
    return length
  end
  redis.call('APPEND', log_key(r.id, sequence), ids:sub(known * 4 + 1))
  local missing = count * r.logprob_bytes - #logprobs
  if r.logprob_bytes > 0 then
    logprobs = missing > 0 and logprobs .. ('\0'):rep(missing) or logprobs
    redis.call('APPEND', logprobs_key(r.id, sequence), logprobs:sub(known * r.logprob_bytes + 1))
  end
  return offset + count
end
