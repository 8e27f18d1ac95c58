-- What listeners are told, how a request ends, and what becomes of it when its last listener leaves.
--
-- A message to a router: text identity, uint32 count, then for each publication: text id, uint32 epoch, uint32 count of
-- sequences, for each uint32 sequence, uint32 offset, text ids, text log-probabilities, text finish; text end (empty:
-- none). One message for each router and call.

local PUBLICATIONS = {} -- router → list of packed publications
local ROUTERS = {} -- a record's listeners as they are written → routers; a batch mostly repeats a few

local function listeners_of(r)
  local routers, numbers = {}, {}
  for router, number in r.listeners:gmatch('(%S+) (%d+)') do
    routers[#routers + 1] = router
    numbers[router] = tonumber(number)
  end
  return routers, numbers
end

local function set_listeners(r, routers, numbers)
  local parts = {}
  for i, router in ipairs(routers) do
    parts[i] = router .. ' ' .. text(numbers[router])
  end
  r.listeners = table.concat(parts, ' ')
  redis.call('HSET', request_key(r.id), 'listeners', r.listeners)
end

local function add_listener(r, router, number)
  local routers, numbers = listeners_of(r)
  if not numbers[router] then
    routers[#routers + 1] = router
  end
  numbers[router] = math.max(number, numbers[router] or 0)
  set_listeners(r, routers, numbers)
  redis.call('SADD', key('streams:' .. router), r.id)
  redis.call('ZADD', key('routers'), 'NX', text(NOW + LEASE_MS), router)
end

-- Collects a publication; `sequences` are packed ones.
local function publish(r, sequences, packed_end)
  if r.listeners == '' then
    return
  end
  local packed = struct.pack('<I4c0I4I4c0I4c0', #r.id, r.id, r.epoch, #sequences, table.concat(sequences), #packed_end,
    packed_end)
  ROUTERS[r.listeners] = ROUTERS[r.listeners] or listeners_of(r)
  for _, router in ipairs(ROUTERS[r.listeners]) do
    local collected = PUBLICATIONS[router] or {}
    PUBLICATIONS[router] = collected
    collected[#collected + 1] = packed
  end
end

-- Sends what was collected; called once, after everything is written.
local function send_publications()
  for router, packed in pairs(PUBLICATIONS) do
    redis.call('SPUBLISH', key('tokens:' .. router),
      struct.pack('<I4c0I4', #IDENTITY, IDENTITY, #packed) .. table.concat(packed))
  end
end

-- Gives a request to a leader and tells its listeners that it has started.
local function start(r, incarnation, epoch, nonce, total)
  grant(r, incarnation, epoch, nonce, total)
  publish(r, {}, '')
end

local function answer(body)
  send_publications()
  return reply(body)
end

-- Counts what a request has used. Called where its end is written, and nowhere else: so the count is lost, and restored,
-- with the end itself.
local function count_usage(r, state, offsets)
  local completion = 0
  for i = 1, r.outputs do
    completion = completion + offsets[i]
  end
  redis.call('HINCRBY', key('usage'), 'requests_' .. state:lower() .. ':' .. r.tenant, 1)
  redis.call('HINCRBY', key('usage'), 'prompt_tokens:' .. r.tenant, r.prompt_tokens)
  redis.call('HINCRBY', key('usage'), 'completion_tokens:' .. r.tenant, completion)
end

-- Ends a request that has not ended. `how` may say: offsets and finishes (else: what the log holds), message, instant,
-- noted (finishes of the logs, where they are more than the end's), by_owner (its leader knows, and its grant is kept, so that a resent end is known), sequences (published with it),
-- may_be_counted (this end may have been written and counted before, and its record have run out).
local function end_request(r, state, how)
  whole(r)
  if r.state == 'RUNNING' then
    ungrant(r)
    if not how.by_owner then
      tell(r.owner, 'ended', r.id)
    end
  else
    dequeue(r)
  end
  local lengths, total = log_lengths(r)
  local finishes = how.finishes or finishes_of(r)
  local noted = how.noted or finishes
  local offsets = how.offsets or lengths
  local packed = pack_end(state, offsets, finishes, how.message or '', how.instant or NOW)
  if how.by_owner then
    redis.call('HSET', request_key(r.id), 'last_epoch', r.epoch, 'last_nonce', r.nonce)
  end
  publish(r, how.sequences or {}, packed)
  for _, router in ipairs((listeners_of(r))) do
    redis.call('SREM', key('streams:' .. router), r.id)
  end
  r.state, r['end'], r.owner, r.nonce, r.listeners, r.finishes = state, packed, '', '', '', pack_texts(noted)
  redis.call('HSET', request_key(r.id), 'state', state, 'end', packed, 'owner', '', 'nonce', '', 'listeners', '',
    'finishes', r.finishes)
  redis.call('ZREM', key('deadlines'), r.id)
  redis.call('ZREM', key('detached'), r.id)
  settle(r, total)
  if not how.may_be_counted then
    count_usage(r, state, offsets)
  end
  keep_for_a_while(r)
end

-- Begins a grace, or lets a longer one be.
local function wait_for_client(r, ms)
  redis.call('ZADD', key('detached'), 'GT', text(NOW + ms), r.id)
end

-- The instant until which a request waits for a client, or 0. A grace that an outage cut short begins anew at its end.
local function grace_end(r)
  local ends = tonumber(redis.call('ZSCORE', key('detached'), r.id) or nil)
  return ends and math.max(ends, lane_number('last_outage') + r.grace_ms) or 0
end

-- Takes a listener away. The last one decides: cancel now, a grace, or nothing. A dead router is no client's wish: its
-- streams get at least two leases in which their clients come back, also where they are to be cancelled, and also where
-- another router listens: whose client that is, and how long it stays, nobody knows.
local function drop_listener(r, router, is_dead)
  local routers, numbers = listeners_of(r)
  local left = {}
  for _, other in ipairs(routers) do
    if other ~= router then
      left[#left + 1] = other
    end
  end
  set_listeners(r, left, numbers)
  redis.call('SREM', key('streams:' .. router), r.id)
  if is_terminal(r) or whole(r).on_disconnect == 'continue' then
    return
  end
  if is_dead then
    wait_for_client(r, math.max(r.grace_ms, 2 * LEASE_MS))
  elseif #left > 0 then
    return
  elseif r.on_disconnect == 'grace' then
    wait_for_client(r, r.grace_ms)
  elseif held_back(r) then
    wait_for_client(r, 0)
  elseif grace_end(r) <= NOW then
    end_request(r, 'CANCELLED', { message = 'the client disconnected' })
  end
end

-- Record and logs as a router reads them: text code, info, text state, uint32 epoch, uint32 attempts, uint32 position
-- + 1 (0: does not wait), text end, logs.
local function pack_snapshot(code, r, offsets)
  whole(r)
  local position = r.state == 'WAITING' and position_of(r) + 1 or 0
  return struct.pack('<I4c0', #code, code) .. pack_info(r)
    .. struct.pack('<I4c0I4I4I4I4c0', #r.state, r.state, r.epoch, r.attempts, position, #r['end'], r['end'])
    .. (pack_logs(r, offsets, MAX_REPLY_BYTES))
end

-- What is answered where no such request of the tenant exists.
local function not_found(r)
  local code = (r == nil and IN_HOLD) and 'HOLD' or 'GONE'
  return struct.pack('<I4c0', #code, code)
end

local function unpack_offsets(packed)
  local offsets = {}
  for i = 1, #packed / 4 do
    offsets[i] = struct.unpack('<I4', packed, 4 * i - 3)
  end
  return offsets
end
