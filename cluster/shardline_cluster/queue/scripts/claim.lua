#!lua flags=allow-oom
-- claim: grants waiting requests to a leader with room, renews its lease, sweeps a little.
--
-- First what was handed back with tokens, by number; then the head of the queue of the tenant with the least virtual
-- time, again and again. A head that does not fit is passed over for this claim, and its tenant with it. The number of
-- the last claim again brings what it granted, as far as the grants still hold; a lower number is STALE: nothing is done.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 incarnation · 3 claim number · 4 nonce (8 bytes) · 5 free slots · 6 free tokens · 7 inbox seen
-- Reply uint32 stale, uint32 next event in milliseconds, mail, uint32 count, then for each: info, uint32 epoch, nonce
--       (8 bytes), uint32 attempts, logs

local SWEEP_BUDGET = 32
local MAX_LOOKS = 1024 -- at requests in tenants' queues; a claim that is over its looks goes on with the next one
local MAX_HIDDEN = 64 -- heads of one queue that a hold hides
local incarnation, number, nonce = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local slots, tokens, seen = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local me = replica_key(incarnation)
local ALL = {} -- logs from token 0

local granted, granted_ids, size = {}, {}, 0

local function pack_granted(r)
  local logs, bytes = pack_logs(r, ALL, math.huge)
  size = size + bytes + r.bytes
  granted[#granted + 1] = pack_info(r) .. struct.pack('<I4', r.epoch) .. r.nonce .. struct.pack('<I4', r.attempts)
    .. logs
  granted_ids[#granted_ids + 1] = r.id
end

local function next_event_ms()
  local nearest = NOW + LEASE_MS
  if IN_HOLD then
    nearest = math.min(nearest, HOLD_UNTIL)
  end
  for _, members in ipairs({ 'replicas', 'routers', 'deadlines', 'detached' }) do
    local first = redis.call('ZRANGE', key(members), 0, 0, 'WITHSCORES')
    nearest = math.min(nearest, tonumber(first[2]) or nearest)
  end
  return math.max(1, nearest - NOW)
end

local function answer_claim(stale, inbox)
  return answer(struct.pack('<I4I4', stale, next_event_ms()) .. inbox .. struct.pack('<I4', #granted)
    .. table.concat(granted))
end

-- How many sequences are unfinished, and the longest of their logs.
local function open_sequences(r, lengths)
  local open, longest = 0, 0
  for i, finish in ipairs(finishes_of(r)) do
    if finish == '' then
      open, longest = open + 1, math.max(longest, lengths[i])
    end
  end
  return open, longest
end

-- Takes a waiting request if there is room for it: a slot for each unfinished sequence; tokens for the prompt, the
-- longest unfinished log and one more (a log of the prompt's own tokens may be longer than any output: it takes no
-- room). An engine computes the sequences one after the other where they do not fit together: all of them may be more
-- than any replica holds, and the request would wait for ever.
local function take(r)
  local lengths, total = log_lengths(r)
  local open, longest = open_sequences(r, lengths)
  local need = r.prompt_tokens + math.min(longest, r.max_tokens) + 1
  if open > slots or need > tokens then
    return false
  end
  if #granted > 0 and size + r.bytes + total * (4 + r.logprob_bytes) > MAX_REPLY_BYTES then
    return false
  end
  slots, tokens = slots - open, tokens - need
  dequeue(r)
  redis.call('HSET', request_key(r.id), 'fruitless', r.fruitless + 1)
  start(r, incarnation, r.epoch + 1, nonce, total)
  pack_granted(r)
  return true
end

local function take_handed_back()
  for _, id in ipairs(redis.call('ZRANGE', key('handed_back'), 0, MAX_BATCH - 1)) do
    if slots <= 0 or tokens <= 0 then
      return
    end
    local r = load_whole(id)
    if r and not held_back(r) then
      take(r)
    end
  end
end

local looks = MAX_LOOKS
local hidden = {} -- tenant → heads of its queue that the hold hides

-- The first of a tenant's queue that the hold does not hide.
local function head_of(tenant)
  local at = hidden[tenant] or 0
  while looks > 0 and at < (IN_HOLD and MAX_HIDDEN or 1) do
    looks = looks - 1
    local id = redis.call('ZRANGE', waiting_key(tenant), at, at)[1]
    local r = id and load_whole(id)
    if not id or (r and not held_back(r)) then
      return r
    end
    at = at + 1
    hidden[tenant] = at
  end
  return nil
end

-- Who is served has a higher time afterwards, so that those passed over stay the first of all tenants.
local function take_by_fair_share()
  local passed_over = 0
  while slots > 0 and tokens > 0 and looks > 0 and #granted < MAX_BATCH do
    local tenant = redis.call('ZRANGE', key('tenants'), passed_over, passed_over)[1]
    if not tenant then
      return
    end
    local r = head_of(tenant)
    if r and take(r) then
      charge(r)
      note_drained()
    else
      passed_over = passed_over + 1
    end
  end
end

local function grant_again(ids, last_nonce)
  for id in ids:gmatch('%S+') do
    local r = load_whole(id)
    if r and r.state == 'RUNNING' and r.owner == incarnation and r.nonce == last_nonce then
      pack_granted(r)
    end
  end
end

local last = redis.call('HMGET', me, 'claim_number', 'claim_nonce', 'claim_ids')
local last_number = tonumber(last[1] or nil) or 0
if number < last_number then
  return answer_claim(1, struct.pack('<I4', 0))
end
renew_leader(incarnation)
if number == last_number then
  grant_again(last[3], last[2])
else
  sweep(SWEEP_BUDGET)
  take_handed_back()
  take_by_fair_share()
  redis.call('HSET', me, 'claim_number', text(number), 'claim_nonce', nonce, 'claim_ids',
    table.concat(granted_ids, ' '))
  if #granted == 0 and slots > 0 then
    redis.call('ZADD', key('idle'), text(NOW), incarnation)
  else
    redis.call('ZREM', key('idle'), incarnation)
  end
end
return answer_claim(0, mail(incarnation, seen))
