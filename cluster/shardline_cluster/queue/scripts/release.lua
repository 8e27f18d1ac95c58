#!lua flags=allow-oom
-- release: a leader hands requests back with the tokens that they have. Neither a crash nor a fruitless claim.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 incarnation · 3 grants: uint32 count, then for each: text id, uint32 epoch, text nonce
-- Reply nothing

local incarnation, packed = ARGV[2], ARGV[3]
local count, at = struct.unpack('<I4', packed)
local grants = {}

for i = 1, count do
  local id, epoch, nonce
  id, epoch, nonce, at = struct.unpack('<I4c0I4I4c0', packed, at)
  grants[i] = { id = id, epoch = epoch, nonce = nonce }
end

for _, given in ipairs(grants) do
  local r = load_whole(given.id)
  if r and r.state == 'RUNNING' and r.owner == incarnation and r.epoch == given.epoch and r.nonce == given.nonce then
    count_hand_off(r)
    hand_back(r)
  end
end
return reply()
