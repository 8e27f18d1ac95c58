-- The lane of this call: its keys, its terms, the instant, and the hold that begins where the server may have
-- forgotten.
--
-- KEYS[1] is PREFIX:v1:{LANE}:lane; every other key is built from it and lies in the same slot.
-- ARGV[1] are the terms: lease, hold, sweep, unstored (milliseconds), max_crashes, max_fruitless_claims, each uint32.

local LANE = KEYS[1]
local BASE = LANE:sub(1, -5)
local UNPACK_LIMIT = 1000 -- Lua's stack allows a few thousand arguments
local MAX_BATCH = 256 -- requests that one call looks at
local MAX_REPLY_BYTES = 4 * 1024 * 1024

local NOW = now_ms()
local IDENTITY = server_identity()
local LEASE_MS, HOLD_MS, SWEEP_MS, UNSTORED_MS, MAX_CRASHES, MAX_FRUITLESS = struct.unpack('<I4I4I4I4I4I4', ARGV[1])
local HOLD_UNTIL, HOLD_BEGAN

local function key(name)
  return BASE .. name
end

local function text(instant)
  return string.format('%.0f', instant)
end

-- Stops the script: a call that no honest caller makes. Only before the first write.
local function invalid(message)
  error({ err = 'INVALID ' .. message })
end

-- Moves every lease of a sorted set to now + lease; with `extend` only those that would end earlier.
local function renew_all(members, extend)
  for _, incarnation in ipairs(redis.call('ZRANGE', key(members), 0, -1)) do
    if extend then
      redis.call('ZADD', key(members), 'XX', 'GT', text(NOW + LEASE_MS), incarnation)
    else
      redis.call('ZADD', key(members), 'XX', text(NOW + LEASE_MS), incarnation)
    end
  end
end

-- Two hosts' clocks differ, so that the leases are rewritten, not only extended. It renews nobody: `renewed` stays.
local function begin_hold()
  HOLD_BEGAN, HOLD_UNTIL = NOW, NOW + HOLD_MS
  redis.call('HSET', LANE, 'identity', IDENTITY, 'hold_began', text(HOLD_BEGAN), 'hold_until', text(HOLD_UNTIL))
  renew_all('replicas', false)
  renew_all('routers', false)
end

-- The first script that sees another identity than the lane holds begins a hold; the same identity never does again.
-- A missing lane may be one that was forgotten.
local function open_lane()
  local known = redis.call('HMGET', LANE, 'identity', 'hold_began', 'hold_until')
  HOLD_BEGAN, HOLD_UNTIL = tonumber(known[2]), tonumber(known[3])
  if known[1] ~= IDENTITY then
    begin_hold()
  end
end

open_lane()
local IN_HOLD = NOW < HOLD_UNTIL

-- --- members ---------------------------------------------------------------------------------------------------------

local function replica_key(incarnation)
  return BASE .. 'replica:' .. incarnation
end

local function renew_leader(incarnation)
  local is_new = redis.call('ZADD', key('replicas'), text(NOW + LEASE_MS), incarnation)
  redis.call('HSET', replica_key(incarnation), 'renewed', text(NOW))
  if is_new == 1 then
    redis.call('PERSIST', replica_key(incarnation)) -- a reclaimed leader's record runs out
  end
end

local function renew_router(incarnation)
  redis.call('ZADD', key('routers'), text(NOW + LEASE_MS), incarnation)
end

-- --- mail and wake-up calls for leaders ------------------------------------------------------------------------------

local INBOX_LIFE_MS = 3600000 -- mail for a leader that never comes back
local INBOX_PAGE = 256

local function wake(incarnation)
  redis.call('SPUBLISH', key('wake:' .. incarnation), '')
end

-- Wakes one replica that has room and nothing to do. Only a hint: it looks by itself within a second.
local function wake_one()
  local found = redis.call('ZPOPMAX', key('idle'))
  if found[1] then
    wake(found[1])
  end
end

-- Numbers rise even where the counter was rolled back: they are never below the clock.
local function tell(incarnation, kind, id)
  local last = tonumber(redis.call('HGET', replica_key(incarnation), 'inbox_number') or nil) or 0
  local number = math.max(last + 1, NOW)
  redis.call('HSET', replica_key(incarnation), 'inbox_number', text(number))
  redis.call('RPUSH', key('inbox:' .. incarnation), struct.pack('<I8I4c0I4c0', number, #kind, kind, #id, id))
  redis.call('PEXPIRE', key('inbox:' .. incarnation), INBOX_LIFE_MS)
  if not redis.call('ZSCORE', key('replicas'), incarnation) then
    redis.call('PEXPIRE', replica_key(incarnation), INBOX_LIFE_MS)
  end
  wake(incarnation)
end

-- Drops what was read and packs the rest: uint32 count, then for each uint64 number, text kind, text id.
local function mail(incarnation, seen)
  local inbox = key('inbox:' .. incarnation)
  local entries = redis.call('LRANGE', inbox, 0, INBOX_PAGE - 1)
  if #entries == 0 then
    return struct.pack('<I4', 0)
  end
  local read = 0
  while read < #entries and struct.unpack('<I8', entries[read + 1]) <= seen do
    read = read + 1
  end
  redis.call('LTRIM', inbox, read, -1)
  return struct.pack('<I4', #entries - read) .. table.concat(entries, '', read + 1)
end

-- --- the reply -------------------------------------------------------------------------------------------------------

-- Every script returns: identity, 1 in a hold, the instant, and its own packed answer.
local function reply(body)
  return { IDENTITY, IN_HOLD and 1 or 0, text(NOW), body or '' }
end
