-- Ends what is over: leases, deadlines, graces, waits. Everybody does it, so that liveness needs no role.

-- If nobody swept for more than two periods, Redis (or everybody) was away: the first who comes back must not rob
-- those who could not renew meanwhile.
local function excuse_an_outage()
  local last = lane_number('last_sweep')
  if NOW - last > 2 * SWEEP_MS then
    redis.call('HSET', LANE, 'last_outage', text(NOW))
    renew_all('replicas', true)
    renew_all('routers', true)
  end
  redis.call('HSET', LANE, 'last_sweep', text(NOW))
end

-- A crash counts only if the request got no token since it was claimed, and its leader renewed since the last hold. An
-- exit after a drain is no crash, and the claim before it not a fruitless one.
local function count_loss(r, had_drained, renewed)
  local _, total = log_lengths(r)
  if had_drained then
    count_hand_off(r)
  elseif total == r.claimed and renewed > HOLD_BEGAN then
    r.attempts = r.attempts + 1
    redis.call('HSET', request_key(r.id), 'attempts', r.attempts, 'suspect', 1)
  end
end

local function fail_if_poisonous(r)
  if r.attempts >= MAX_CRASHES then
    end_request(r, 'FAILED', {
      message = r.attempts .. ' leaders in a row crashed while they ran it, and none added a token',
    })
  elseif r.fruitless >= MAX_FRUITLESS then
    end_request(r, 'FAILED', { message = 'it was claimed ' .. r.fruitless .. ' times in a row and got no token' })
  end
end

-- Takes back what a dead leader held, at most `budget` requests; the next sweep goes on. Returns how many it took.
local function reclaim(incarnation, had_drained, budget)
  local renewed = tonumber(redis.call('HGET', replica_key(incarnation), 'renewed') or nil) or 0
  local taken = 0
  for _, id in ipairs(redis.call('HKEYS', held_key(incarnation))) do
    if taken >= budget then
      redis.call('ZADD', key('replicas'), 'XX', text(NOW), incarnation)
      return taken
    end
    taken = taken + 1
    local r = load_whole(id)
    if r and r.state == 'RUNNING' and r.owner == incarnation then
      count_loss(r, had_drained, renewed)
      hand_back(r)
      fail_if_poisonous(r)
    else
      redis.call('HDEL', held_key(incarnation), id)
    end
  end
  redis.call('ZREM', key('replicas'), incarnation)
  redis.call('ZREM', key('idle'), incarnation)
  redis.call('PEXPIRE', replica_key(incarnation), INBOX_LIFE_MS)
  return taken
end

local function over(members, budget)
  return redis.call('ZRANGEBYSCORE', key(members), '-inf', text(NOW), 'LIMIT', 0, math.max(0, budget))
end

local function sweep_leaders(budget)
  for _, incarnation in ipairs(over('replicas', budget)) do
    budget = budget - reclaim(incarnation, false, budget)
  end
  return budget
end

local function sweep_routers(budget)
  for _, router in ipairs(over('routers', budget)) do
    local streams = redis.call('SRANDMEMBER', key('streams:' .. router), math.max(1, budget))
    for _, id in ipairs(streams) do
      budget = budget - 1
      local r = load_whole(id)
      if r and not is_terminal(r) then
        drop_listener(r, router, true)
      else
        redis.call('SREM', key('streams:' .. router), id)
      end
    end
    if redis.call('EXISTS', key('streams:' .. router)) == 0 then
      redis.call('ZREM', key('routers'), router)
    end
  end
  return budget
end

-- A grace over which somebody listens ends in nothing.
local function sweep_graces(budget)
  for _, id in ipairs(over('detached', budget)) do
    budget = budget - 1
    local r = load_whole(id)
    if not r or is_terminal(r) then
      redis.call('ZREM', key('detached'), id)
    elseif not held_back(r) then
      local due = grace_end(r)
      if due > NOW then
        redis.call('ZADD', key('detached'), text(due), id)
      elseif r.listeners ~= '' then
        redis.call('ZREM', key('detached'), id)
      else
        end_request(r, 'CANCELLED', { message = 'the client did not come back' })
      end
    end
  end
  return budget
end

local function sweep_deadlines(budget)
  for _, id in ipairs(over('deadlines', budget)) do
    local r = load_whole(id)
    if not r or is_terminal(r) then
      redis.call('ZREM', key('deadlines'), id)
    elseif not held_back(r) then
      local is_late = r.deadline and r.deadline <= NOW
      end_request(r, 'EXPIRED', { message = is_late and "the request's timeout is over" or 'it waited too long in the queue' })
    end
  end
end

local function sweep(budget)
  excuse_an_outage()
  if not IN_HOLD then
    budget = sweep_leaders(budget)
    budget = sweep_routers(budget)
    budget = sweep_graces(budget)
  end
  sweep_deadlines(math.max(1, budget))
  forget_rested(math.max(1, budget))
end
