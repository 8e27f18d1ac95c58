#!lua flags=allow-oom
-- drain: puts a drain message into a leader's inbox, unless one is among its last entries: once is enough.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 incarnation
-- Reply nothing

local incarnation = ARGV[2]
local is_told = false

for _, entry in ipairs(redis.call('LRANGE', key('inbox:' .. incarnation), -INBOX_PAGE, -1)) do
  local _, kind = struct.unpack('<I8I4c0', entry)
  is_told = is_told or kind == 'drain'
end
if not is_told then
  tell(incarnation, 'drain', '')
end
return reply()
