#!lua flags=allow-oom
-- attach: registers a listener and then reads record and logs, so that nothing falls between. A terminal request takes
-- no listener.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 router · 3 listener number · 4 id · 5 tenant · 6 offsets (uint32 for each sequence; absent: 0),
--       the tokens that this server has shown the router before
-- Reply text code (SNAPSHOT, HOLD, GONE), then for the first what pack_snapshot in prelude/ending.lua says. Logs are cut
--       at 4 MB; `look` with offsets brings the rest.

local router, listener_number, id, tenant = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local r = load_whole(id)

if not r or r.tenant ~= tenant then
  return answer(not_found(r))
end
if not is_terminal(r) then
  add_listener(r, router, listener_number)
end
return answer(pack_snapshot('SNAPSHOT', r, unpack_offsets(ARGV[6])))
