#!lua
-- submit: takes a request in. Without the flag allow-oom the server refuses it while its memory is full.
--
-- KEYS  1 lane
-- ARGV  1 terms · 2 router · 3 listener number · 4 submission (packed, see prelude/requests.lua)
-- Reply text code, then
--       ACCEPTED  uint64 submitted, uint64 deadline (0: none), uint32 position, uint32 wait + 1 (0: not known)
--       DUPLICATE info
--       CONFLICT  text id
--       FULL      text bound, uint64 its value, uint64 milliseconds to wait
--       TOO_LARGE uint64 tokens, uint64 bound

local UNKNOWN_WAIT_MS = 1000
local router, listener_number, s = ARGV[2], tonumber(ARGV[3]), unpack_submission(ARGV[4])

local function code(name, rest)
  return answer(struct.pack('<I4c0', #name, name) .. (rest or ''))
end

local function known_request()
  local id = s.key and redis.call('GET', idempotency_key(s.tenant, s.key))
  return id and load_whole(id) or load_whole(s.id)
end

local function full(bound, limit, used, added)
  local waiting = lane_number('waiting_requests')
  local share = (used + added - limit) / math.max(used, 1)
  local wait = drain_time_ms(math.max(1, math.ceil(share * waiting))) or UNKNOWN_WAIT_MS
  return code('FULL', struct.pack('<I4c0I8I8', #bound, bound, limit, math.max(1, wait)))
end

-- The answer that refuses the request, or nil.
local function refusal()
  local limits = redis.call('HMGET', LANE, 'largest_request_tokens', 'max_waiting_requests', 'max_waiting_tokens',
    'max_waiting_bytes')
  local largest = tonumber(limits[1] or nil)
  if largest and s.prompt_tokens + s.max_tokens > largest then
    return code('TOO_LARGE', struct.pack('<I8I8', s.prompt_tokens + s.max_tokens, largest))
  end
  local uses = { { 'waiting_requests', 1 }, { 'waiting_tokens', total_tokens(s) }, { 'waiting_bytes', s.bytes } }
  for i, use in ipairs(uses) do
    local name, added = use[1], use[2]
    local limit, used = tonumber(limits[i + 1] or nil), lane_number(name)
    if limit and used + added > limit then
      return full('max_' .. name, limit, used, added)
    end
  end
  return nil
end

local known = known_request()
if known then
  if known.digest ~= s.digest or known.tenant ~= s.tenant then
    return code('CONFLICT', struct.pack('<I4c0', #known.id, known.id))
  end
  if is_terminal(known) then
    keep_for_a_while(known) -- its retention begins anew
  end
  return code('DUPLICATE', pack_info(known))
end

local refused = refusal()
if refused then
  return refused
end

local is_fresh = s.drawn == IDENTITY and not s.key
local r = create(s, NOW, s.timeout_ms and NOW + s.timeout_ms, is_fresh and IDENTITY or '')
enqueue(r, false)
if not s.background then
  add_listener(r, router, listener_number)
end
wake_one()
local position = position_of(r)
local wait = drain_time_ms(position)
return code('ACCEPTED', struct.pack('<I8I8I4I4', r.submitted, r.deadline or 0, position,
  wait and math.min(wait, 4294967294) + 1 or 0))
