#!lua flags=allow-oom
-- view: counters and members, for people and the controller.
--
-- KEYS  1 lane
-- ARGV  1 terms
-- Reply uint64 waiting requests, waiting tokens, running, handed back, oldest wait (ms), end of the hold (0: none),
--       routers; uint32 count of leaders, then for each: text incarnation, uint64 end of its lease, uint32 held, text
--       numerics id, text status

local oldest = redis.call('ZRANGE', key('queued'), 0, 0, 'WITHSCORES')
local leaders = redis.call('ZRANGE', key('replicas'), 0, -1, 'WITHSCORES')
local parts = { struct.pack('<I8I8I8I8I8I8I8I4', math.max(0, lane_number('waiting_requests')),
  math.max(0, lane_number('waiting_tokens')), math.max(0, lane_number('running')),
  redis.call('ZCARD', key('handed_back')), math.max(0, NOW - (tonumber(oldest[2]) or NOW)), IN_HOLD and HOLD_UNTIL or 0,
  redis.call('ZCARD', key('routers')), #leaders / 2) }

for i = 1, #leaders, 2 do
  local incarnation = leaders[i]
  local told = redis.call('HMGET', replica_key(incarnation), 'numerics_id', 'status')
  local numerics_id, status = told[1] or '', told[2] or ''
  parts[#parts + 1] = struct.pack('<I4c0I8I4I4c0I4c0', #incarnation, incarnation, tonumber(leaders[i + 1]),
    redis.call('HLEN', held_key(incarnation)), #numerics_id, numerics_id, #status, status)
end
return reply(table.concat(parts))
