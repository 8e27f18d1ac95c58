#!lua flags=allow-oom
-- cancel: ends a request now, in whatever state it is, or tells the end that it has. Whoever tells an end must have every
-- id before it, so that it can be restored: the reply brings the logs.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 id · 3 tenant
-- Reply as attach: ENDED, HOLD, GONE

local id, tenant = ARGV[2], ARGV[3]
local r = load_whole(id)

if not r or r.tenant ~= tenant then
  return answer(not_found(r))
end
if not is_terminal(r) then
  if held_back(r) then
    return answer(struct.pack('<I4c0', 4, 'HOLD'))
  end
  end_request(r, 'CANCELLED', { message = 'cancelled by the client' })
end
return answer(pack_snapshot('ENDED', r, {}))
