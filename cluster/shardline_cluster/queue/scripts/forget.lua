#!lua flags=allow-oom
-- forget: deletes an ended request before its retention is over.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 id · 3 tenant
-- Reply text code: FORGOTTEN, NOT_ENDED, GONE

local r = load_whole(ARGV[2])
local code = 'FORGOTTEN'

if not r or r.tenant ~= ARGV[3] then
  code = 'GONE'
elseif not is_terminal(r) then
  code = 'NOT_ENDED'
else
  stay_forgotten(r)
  vanish(r)
end
return reply(code)
