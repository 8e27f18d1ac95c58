-- What one key owes: charged, settled, taken back. The same arithmetic as key_account.py, number for number.
--
-- KEYS  1 hash of the key: at (instant of the last call); requests, requests_limit, tokens, tokens_limit (debts in
--         1/60000 of one, and the limits under which they were incurred; 0: none); next (number of the next charge);
--         `charge:ID` (number, reserved tokens, attempt)
-- ARGV  1 charge, settle or take_back · 2 limit of requests a minute (0: none) · 3 limit of tokens · 4 request
--       5 tokens: to reserve, or used · 6 attempt to submit it · 7 most charges that are remembered
--       8 milliseconds after which all is forgotten
-- Reply nothing, or the refusal: requests or tokens, limit, used, milliseconds to wait

local UNIT = 60000
local FIXED_FIELDS = 6
local CALL, ID, TOKENS, ATTEMPT = ARGV[1], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local MOST_CHARGES, LIFE_MS = tonumber(ARGV[7]), tonumber(ARGV[8])
local NOW = now_ms()

local known = redis.call('HMGET', KEYS[1], 'at', 'next', 'requests', 'requests_limit', 'tokens', 'tokens_limit',
  'charge:' .. ID)
local at = tonumber(known[1] or nil) or NOW
if NOW - at >= LIFE_MS then
  redis.call('DEL', KEYS[1])
  known = {}
end
local next_number = tonumber(known[2] or nil) or 0

local function text(number)
  return string.format('%.0f', number)
end

local function add(debt, units)
  debt.units = math.min(math.max(0, debt.units + units), LIFE_MS * debt.limit)
end

-- What is owed of one kind now. Under another limit than before the same share of it is owed.
local function debt_of(kind, units, old_limit, limit)
  local debt = { kind = kind, limit = limit, units = tonumber(units or nil) or 0 }
  old_limit = tonumber(old_limit or nil) or 0
  if old_limit == 0 or limit == 0 then
    debt.units = 0
  elseif old_limit ~= limit then
    debt.units = math.ceil(debt.units / old_limit * limit)
  end
  add(debt, -math.min(math.max(0, NOW - at), LIFE_MS) * limit)
  return debt
end

local REQUESTS = debt_of('requests', known[3], known[4], tonumber(ARGV[2]))
local OWED = debt_of('tokens', known[5], known[6], tonumber(ARGV[3]))

local function save()
  redis.call('HSET', KEYS[1], 'at', text(NOW), 'next', text(next_number), 'requests', text(REQUESTS.units),
    'requests_limit', text(REQUESTS.limit), 'tokens', text(OWED.units), 'tokens_limit', text(OWED.limit))
  redis.call('PEXPIRE', KEYS[1], text(LIFE_MS))
end

-- Milliseconds until a cost finds room.
local function wait_for(debt, cost)
  if debt.limit == 0 then
    return 0
  end
  return math.ceil(math.max(0, debt.units + cost - UNIT * debt.limit) / debt.limit)
end

local function forget_old_charges()
  local fields, charges = redis.call('HGETALL', KEYS[1]), {}
  for i = 1, #fields, 2 do
    if fields[i]:sub(1, 7) == 'charge:' then
      charges[#charges + 1] = { fields[i], tonumber(fields[i + 1]:match('%d+')) }
    end
  end
  table.sort(charges, function(one, other)
    return one[2] < other[2]
  end)
  for i = 1, MOST_CHARGES / 2 do
    redis.call('HDEL', KEYS[1], charges[i][1])
  end
end

local function charge()
  local reserved = OWED.limit > 0 and math.min(TOKENS, OWED.limit) or TOKENS
  local request_wait, token_wait = wait_for(REQUESTS, UNIT), wait_for(OWED, UNIT * reserved)
  if request_wait > 0 or token_wait > 0 then
    local debt = token_wait > request_wait and OWED or REQUESTS
    return { debt.kind, debt.limit, math.ceil(debt.units / UNIT), math.max(request_wait, token_wait) }
  end
  add(REQUESTS, UNIT)
  add(OWED, UNIT * reserved)
  redis.call('HSET', KEYS[1], 'charge:' .. ID, table.concat({ text(next_number), text(reserved), ATTEMPT }, ' '))
  next_number = next_number + 1
  return {}
end

local function settle(used)
  local reserved = tonumber(known[7]:match(' (%d+)'))
  add(OWED, UNIT * (used - reserved))
  redis.call('HDEL', KEYS[1], 'charge:' .. ID)
end

local is_this_attempt = known[7] and known[7]:match('%S+$') == ATTEMPT
local answer = {}
if CALL == 'charge' then
  answer = is_this_attempt and {} or charge()
elseif CALL == 'settle' and known[7] then
  settle(TOKENS)
elseif CALL == 'take_back' and is_this_attempt then
  settle(0)
  add(REQUESTS, -UNIT)
end
save()
if redis.call('HLEN', KEYS[1]) - FIXED_FIELDS > MOST_CHARGES then
  forget_old_charges()
end
return answer
