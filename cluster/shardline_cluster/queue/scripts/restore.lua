#!lua flags=allow-oom
-- restore: gives a server back what it may have forgotten: a record, ids, an end, or a grant.
--
-- A run that was forgotten on demand stays so. An end that is there wins. A grant is adopted where the record is missing, or in a hold where its epoch is higher; a
-- record that already carries this very grant is OK (a resend). An id derived from an idempotency key comes again after
-- its retention, so that `submitted` is compared: apart by less than the retention, or never claimed and without tokens,
-- it is the same run, submitted again after the server forgot it; otherwise another one.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 incarnation · 3 submission · 4 submitted · 5 deadline (empty: none)
--       6 logs: uint32 count, then for each: uint32 offset, text ids, text log-probabilities, text finish
--       7 grant: uint32 epoch, text nonce; empty: none · 8 end (packed; empty: none)
-- Reply text code, uint32 sequence, uint32 offset, text end

local incarnation, s = ARGV[2], unpack_submission(ARGV[3])
local submitted, deadline = tonumber(ARGV[4]), tonumber(ARGV[5])
local told = ARGV[8] ~= '' and unpack_end(ARGV[8]) or nil

local function code(name, sequence, offset, r)
  local packed = r and r['end'] or ''
  return answer(struct.pack('<I4c0I4I4I4c0', #name, name, sequence or 0, offset or 0, #packed, packed))
end

local function unpack_logs(packed)
  local count, at = struct.unpack('<I4', packed)
  local logs = {}
  for i = 1, count do
    local log = {}
    log.offset, log.ids, log.logprobs, log.finish, at = struct.unpack('<I4I4c0I4c0I4c0', packed, at)
    log.last = log.offset + #log.ids / 4
    logs[i] = log
  end
  return logs
end

local function unpack_grant(packed)
  if packed == '' then
    return nil
  end
  local epoch, nonce = struct.unpack('<I4I4c0', packed)
  return { epoch = epoch, nonce = nonce }
end

local function is_another_run(r, total)
  local was_touched = r.epoch > 0 or total > 0 or is_terminal(r)
  return math.abs(submitted - r.submitted) >= r.retention_ms and was_touched
end

-- The record takes the earlier of two instants at which the same run was submitted.
local function take_earlier(r)
  if submitted >= r.submitted then
    return
  end
  r.submitted, r.deadline = submitted, deadline
  redis.call('HSET', request_key(r.id), 'submission', s.packed, 'submitted', text(submitted), 'deadline',
    deadline and text(deadline) or '')
  if r.state == 'WAITING' then
    local _, total = log_lengths(r)
    redis.call('ZADD', key('queued'), text(submitted), r.id)
    expire_at(r, waits_until(r, total > 0))
  elseif r.state == 'RUNNING' then
    expire_at(r, deadline)
  end
end

-- The first place where logs and the restored ones do not fit: code, sequence, offset; or nil. A restored end may cut
-- the log.
local function misfit(r, logs, lengths, finishes)
  for i, log in ipairs(logs) do
    local length, finish = lengths[i], finishes[i]
    if log.offset > length then
      return 'SHORT', i - 1, length
    end
    local at = first_difference(r, i - 1, log.offset, length, log.ids)
    if at then
      return 'DIVERGED', i - 1, at
    end
    if (finish ~= '' and log.last > length) or (log.finish ~= '' and log.last < length and not told) then
      return 'DIVERGED', i - 1, math.min(length, log.last)
    end
  end
  return nil
end

-- Without an end, finishes are noted only as long as one sequence stays open: a request ends by a commit or an end.
local function complete(r, logs, lengths, finishes)
  local stays_open, total, has_finish = false, 0, false
  for i, log in ipairs(logs) do
    stays_open = stays_open or (finishes[i] == '' and log.finish == '')
  end
  for i, log in ipairs(logs) do
    local length = append(r, i - 1, lengths[i], log.offset, log.ids, log.logprobs)
    if length > lengths[i] and r.fruitless > 0 then
      r.fruitless = 0
      redis.call('HSET', request_key(r.id), 'fruitless', 0, 'suspect', 0)
    end
    lengths[i], total = length, total + length
    if stays_open and finishes[i] == '' and log.finish ~= '' then
      finishes[i], has_finish = log.finish, true
    end
  end
  if has_finish then
    r.finishes = pack_texts(finishes)
    redis.call('HSET', request_key(r.id), 'finishes', r.finishes)
  end
  return total
end

-- A record that lacks an end from within its retention was rolled back, and the count of the end with it. Where the end
-- is older, the record may be missing because it ran out: an end is never counted twice.
local function end_by_restore(r, finishes)
  for i, finish in ipairs(told.finishes) do
    finishes[i] = finish ~= '' and finish or finishes[i]
  end
  told.noted = finishes
  told.may_be_counted = told.instant + r.keep_ms <= NOW
  end_request(r, told.state, told)
end

local function adopt(r, given, is_new, total)
  if r.state == 'RUNNING' and r.owner == incarnation and r.epoch == given.epoch and r.nonce == given.nonce then
    return 'OK'
  end
  if not is_new and not (IN_HOLD and given.epoch > r.epoch) then
    return 'REFUSED'
  end
  if r.state == 'RUNNING' then
    ungrant(r)
  else
    dequeue(r)
  end
  start(r, incarnation, given.epoch, given.nonce, total)
  renew_leader(incarnation)
  return 'OK'
end

local logs, given = unpack_logs(ARGV[6]), unpack_grant(ARGV[7])
if submitted < forgotten_at(s.id) then
  return code('FORGOTTEN')
end
local r = load_whole(s.id)

if r and submitted ~= r.submitted then
  local _, total = log_lengths(r)
  if is_another_run(r, total) then
    if not is_terminal(r) or submitted < r.submitted then
      return code('OTHER')
    end
    vanish(r)
    r = nil
  else
    take_earlier(r)
  end
end

local is_new = r == nil
if is_new then
  r = create(s, submitted, deadline, '')
  enqueue(r, false)
end
if is_terminal(r) then
  return code('ENDED', 0, 0, r)
end
local lengths, total = log_lengths(r)
local finishes = finishes_of(r)
local problem, sequence, offset = misfit(r, logs, lengths, finishes)
if problem then
  return code(problem, sequence, offset)
end

local had_tokens = total > 0
total = complete(r, logs, lengths, finishes)
if told then
  end_by_restore(r, finishes)
  return code('OK', 0, 0, r)
end
if r.state == 'WAITING' and total > 0 and not had_tokens then
  dequeue(r)
  enqueue(r, true)
end
if given then
  return code(adopt(r, given, is_new, total))
end
if r.state == 'WAITING' then
  wake_one()
end
return code('OK')
