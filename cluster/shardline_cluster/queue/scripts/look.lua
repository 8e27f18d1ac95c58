#!lua flags=allow-oom
-- look: reads record and logs without listening.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 id · 3 tenant · 4 offsets (uint32 for each sequence; absent: 0)
-- Reply as attach

local r = load_whole(ARGV[2])

if not r or r.tenant ~= ARGV[3] then
  return reply(not_found(r))
end
return reply(pack_snapshot('SNAPSHOT', r, unpack_offsets(ARGV[4])))
