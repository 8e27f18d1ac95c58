-- Who waits, who runs, and whose turn it is.
--
-- Fairness is start-time fair queueing by tokens over tenants: a tenant's virtual time grows by what it was charged,
-- divided by its weight; the least time is served next. `shares` keeps `time:TENANT` and `active:TENANT` (requests
-- charged and not ended yet) of each tenant of which something waits or runs, and of those in `resting`: idle, but with
-- a time that the lane's has not reached.

local PRIORITY_BAND = 2 ^ 44 -- numbers stay below it; a score holds 53 bits
local MAX_RESTING = 10000 -- tenants; where each comes only once, the lane's time hardly moves
local DRAIN_TAU_MS = 30000 -- the drain rate forgets with this time constant

local function waiting_key(tenant)
  return BASE .. 'waiting:' .. tenant
end

local function real(value)
  return string.format('%.17g', value)
end

local function lane_number(field)
  return tonumber(redis.call('HGET', LANE, field) or nil) or 0
end

-- --- fairness --------------------------------------------------------------------------------------------------------

local function tenant_time(tenant)
  return tonumber(redis.call('HGET', key('shares'), 'time:' .. tenant) or nil)
end

local function set_tenant_time(tenant, time)
  redis.call('HSET', key('shares'), 'time:' .. tenant, real(time))
  redis.call('ZADD', key('tenants'), 'XX', real(time), tenant)
end

-- A tenant that comes back from idling starts at the lane's time, not at its old one.
local function activate(tenant)
  if redis.call('ZSCORE', key('tenants'), tenant) then
    return
  end
  local time = math.max(tenant_time(tenant) or 0, lane_number('virtual_time'))
  redis.call('ZREM', key('resting'), tenant)
  redis.call('ZADD', key('tenants'), real(time), tenant)
  redis.call('HSET', key('shares'), 'time:' .. tenant, real(time))
end

local function rest_if_idle(tenant)
  local active = tonumber(redis.call('HGET', key('shares'), 'active:' .. tenant) or nil) or 0
  if active <= 0 and redis.call('EXISTS', waiting_key(tenant)) == 0 then
    redis.call('ZADD', key('resting'), real(tenant_time(tenant) or 0), tenant)
  end
end

-- A lane without work begins anew: its time catches up with all tenants, so that no debt outlives the work that it was
-- incurred over.
local function catch_up_if_idle()
  if lane_number('running') > 0 or redis.call('EXISTS', key('tenants'), key('handed_back')) > 0 then
    return
  end
  local last = redis.call('ZRANGE', key('resting'), -1, -1, 'WITHSCORES')
  if last[1] then
    redis.call('HSET', LANE, 'virtual_time', real(math.max(lane_number('virtual_time'), tonumber(last[2]))))
  end
end

-- Forgets idle tenants that owe nothing any more, and those that owe least where there are too many.
local function forget_rested(budget)
  catch_up_if_idle()
  local rested = redis.call('ZRANGEBYSCORE', key('resting'), '-inf', real(lane_number('virtual_time')), 'LIMIT', 0, budget)
  local surplus = math.min(redis.call('ZCARD', key('resting')) - MAX_RESTING, budget)
  if surplus > #rested then
    rested = redis.call('ZRANGE', key('resting'), 0, surplus - 1)
  end
  for _, tenant in ipairs(rested) do
    redis.call('HDEL', key('shares'), 'time:' .. tenant, 'active:' .. tenant)
    redis.call('ZREM', key('resting'), tenant)
  end
end

local function weight_of(tenant)
  return tonumber(redis.call('HGET', key('weights'), tenant) or nil) or 1
end

-- Charged once, at the first claim, for what is expected: no more output than the lane's mean.
local function charge(r)
  if r.charged > 0 then
    return
  end
  local mean = lane_number('mean_output')
  local output = mean > 0 and math.min(r.max_tokens, mean) or r.max_tokens
  r.charged = math.max(1, math.ceil(r.prompt_tokens + r.n * output))
  local start = tenant_time(r.tenant) or 0
  redis.call('HSET', LANE, 'virtual_time', real(math.max(lane_number('virtual_time'), start)))
  set_tenant_time(r.tenant, start + r.charged / weight_of(r.tenant))
  redis.call('HINCRBY', key('shares'), 'active:' .. r.tenant, 1)
  redis.call('ZREM', key('resting'), r.tenant)
  redis.call('HSET', request_key(r.id), 'charged', r.charged)
end

-- The mean of a sequence's output, over some dozens of requests.
local function note_output(r, total)
  local mean, output = lane_number('mean_output'), total / r.n
  mean = mean == 0 and output or mean + (output - mean) / 16
  redis.call('HSET', LANE, 'mean_output', real(mean))
end

-- At the end the tenant pays for what it had, not for what was expected.
local function settle(r, total)
  if r.charged == 0 then
    return
  end
  local time = tenant_time(r.tenant)
  if time then
    set_tenant_time(r.tenant, time + (r.prompt_tokens + total - r.charged) / weight_of(r.tenant))
  end
  redis.call('HINCRBY', key('shares'), 'active:' .. r.tenant, -1)
  note_output(r, total)
  rest_if_idle(r.tenant)
end

-- --- how fast the lane drains ----------------------------------------------------------------------------------------

-- Requests a second that leave the tenants' queues, weighted by age; nil where nothing has left yet.
local function drain_rate()
  local known = redis.call('HMGET', LANE, 'drain_rate', 'drain_at', 'drain_from')
  local rate, at, from = tonumber(known[1] or nil), tonumber(known[2] or nil), tonumber(known[3] or nil)
  if not rate then
    return nil
  end
  local age, span = math.max(0, NOW - at), math.max(1, NOW - from)
  return rate * math.exp(-age / DRAIN_TAU_MS) / (1 - math.exp(-span / DRAIN_TAU_MS))
end

local function note_drained()
  local known = redis.call('HMGET', LANE, 'drain_rate', 'drain_at')
  local rate, at = tonumber(known[1] or nil) or 0, tonumber(known[2] or nil)
  if not at then
    redis.call('HSET', LANE, 'drain_from', text(NOW))
  end
  rate = rate * math.exp(-math.max(0, NOW - (at or NOW)) / DRAIN_TAU_MS) + 1000 / DRAIN_TAU_MS
  redis.call('HSET', LANE, 'drain_rate', real(rate), 'drain_at', text(NOW))
end

-- Milliseconds until so many requests have left, or nil where nobody can say.
local function drain_time_ms(requests)
  local rate = drain_rate()
  return rate and rate > 1e-6 and math.ceil(1000 * requests / rate) or nil
end

-- --- waiting ---------------------------------------------------------------------------------------------------------

local function total_tokens(r)
  return r.prompt_tokens + r.n * r.max_tokens
end

local function count_waiting(r, sign)
  redis.call('HINCRBY', LANE, 'waiting_requests', sign)
  redis.call('HINCRBY', LANE, 'waiting_tokens', sign * total_tokens(r))
  redis.call('HINCRBY', LANE, 'waiting_bytes', sign * r.bytes)
end

-- The instant at which a request expires: its deadline, or the end of its wait, or never.
local function expire_at(r, instant)
  if instant then
    redis.call('ZADD', key('deadlines'), text(instant), r.id)
  else
    redis.call('ZREM', key('deadlines'), r.id)
  end
end

-- The longest wait counts from the acceptance, while a request was never claimed and has no tokens.
local function waits_until(r, has_tokens)
  if has_tokens or r.epoch > 0 then
    return r.deadline
  end
  return math.min(r.deadline or math.huge, r.submitted + r.max_queue_ms)
end

-- Puts a WAITING request where it belongs: with tokens before all tenants, without into its tenant's queue, where its
-- old number takes it to the front.
local function enqueue(r, has_tokens)
  if has_tokens then
    redis.call('ZADD', key('handed_back'), r.number, r.id)
  else
    redis.call('ZADD', waiting_key(r.tenant), text((r.priority + 100) * PRIORITY_BAND + r.number), r.id)
    count_waiting(r, 1)
    activate(r.tenant)
  end
  redis.call('ZADD', key('queued'), text(r.submitted), r.id)
  expire_at(r, waits_until(r, has_tokens))
end

local function dequeue(r)
  redis.call('ZREM', key('queued'), r.id)
  if redis.call('ZREM', key('handed_back'), r.id) == 1 then
    return
  end
  if redis.call('ZREM', waiting_key(r.tenant), r.id) == 1 then
    count_waiting(r, -1)
    if redis.call('EXISTS', waiting_key(r.tenant)) == 0 then
      redis.call('ZREM', key('tenants'), r.tenant)
      rest_if_idle(r.tenant)
    end
  end
end

-- Requests that wait before this one, as far as its tenant's own queue tells.
local function position_of(r)
  local handed = redis.call('ZRANK', key('handed_back'), r.id)
  if handed then
    return handed
  end
  return redis.call('ZCARD', key('handed_back')) + (redis.call('ZRANK', waiting_key(r.tenant), r.id) or 0)
end

-- --- running ---------------------------------------------------------------------------------------------------------

local function hex(bytes)
  return (bytes:gsub('.', function(byte)
    return string.format('%02x', byte:byte())
  end))
end

local function held_key(incarnation)
  return BASE .. 'held:' .. incarnation
end

local function drop_digest(incarnation)
  redis.call('HDEL', replica_key(incarnation), 'digest')
end

-- The digest of what a leader holds: SHA-1 of the sorted lines ID:EPOCH:NONCEHEX. Kept until something changes.
local function held_digest(incarnation)
  local known = redis.call('HGET', replica_key(incarnation), 'digest')
  if known then
    return known
  end
  local held, lines = redis.call('HGETALL', held_key(incarnation)), {}
  for i = 1, #held, 2 do
    lines[#lines + 1] = held[i] .. ':' .. held[i + 1]
  end
  table.sort(lines)
  local digest = redis.sha1hex(table.concat(lines, '\n'))
  redis.call('HSET', replica_key(incarnation), 'digest', digest)
  return digest
end

-- Gives a request that is in no queue (any more) to a leader.
local function grant(r, incarnation, epoch, nonce, total)
  r.state, r.owner, r.epoch, r.nonce, r.claimed = 'RUNNING', incarnation, epoch, nonce, total
  redis.call('HSET', request_key(r.id), 'state', 'RUNNING', 'owner', incarnation, 'epoch', epoch, 'nonce', nonce,
    'claimed', total)
  redis.call('HSET', held_key(incarnation), r.id, epoch .. ':' .. hex(nonce))
  drop_digest(incarnation)
  redis.call('HINCRBY', LANE, 'running', 1)
  expire_at(r, r.deadline)
end

local function ungrant(r)
  redis.call('HDEL', held_key(r.owner), r.id)
  drop_digest(r.owner)
  redis.call('HINCRBY', LANE, 'running', -1)
end

-- Takes a RUNNING request from its leader and queues it again, with the tokens that it has.
local function hand_back(r)
  ungrant(r)
  r.state, r.owner, r.nonce = 'WAITING', '', ''
  redis.call('HSET', request_key(r.id), 'state', 'WAITING', 'owner', '', 'nonce', '')
  local _, total = log_lengths(r)
  enqueue(r, total > 0)
  wake_one()
end

-- A claim that ended in a hand-off was not fruitless.
local function count_hand_off(r)
  r.fruitless = math.max(0, r.fruitless - 1)
  redis.call('HSET', request_key(r.id), 'fruitless', r.fruitless)
end
