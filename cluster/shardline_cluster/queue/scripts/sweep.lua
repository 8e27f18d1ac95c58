#!lua flags=allow-oom
-- sweep: ends what is over, renews the router's lease, takes back what leaders held whose processes were seen to exit.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 router (empty: none) · 3 … pairs of incarnation and whether it had drained (0, 1)
-- Reply nothing

if ARGV[2] ~= '' then
  renew_router(ARGV[2])
end
sweep(MAX_BATCH)
if not IN_HOLD then
  local budget = MAX_BATCH
  for i = 3, #ARGV, 2 do
    budget = budget - reclaim(ARGV[i], ARGV[i + 1] == '1', budget)
  end
end
return answer()
