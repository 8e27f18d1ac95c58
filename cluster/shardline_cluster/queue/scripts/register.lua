#!lua flags=allow-oom
-- register: gives a leader or router its lease, or renews it, and notes what it says of itself.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 incarnation · 3 role (leader, router) · 4 numerics id · 5 slots · 6 tokens of KV memory · 7 status
-- Reply nothing

local incarnation, role = ARGV[2], ARGV[3]

if role == 'router' then
  renew_router(incarnation)
else
  renew_leader(incarnation)
  redis.call('HSET', replica_key(incarnation), 'role', role, 'numerics_id', ARGV[4], 'max_slots', ARGV[5],
    'max_tokens', ARGV[6], 'status', ARGV[7])
end
return reply()
