#!lua flags=allow-oom
-- detach: takes a listener away, unless a newer attach of this router has a higher number.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 router · 3 listener number · 4 id
-- Reply nothing

local router, number, id = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local r = load_whole(id)

if r then
  local _, numbers = listeners_of(r)
  if numbers[router] and numbers[router] <= number then
    drop_listener(r, router, false)
  end
end
return answer()
