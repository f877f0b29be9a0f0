package redis

import goredis "github.com/redis/go-redis/v9"

// claimScript receives: in one step it pops messages and records them as unacked, in kombu's own format, so that a
// message is always either in its list or in the unacked hash and never only in a socket. Python's sweep can restore
// what it recorded.
//
//	KEYS  1 unacked, 2 unacked_index, then the lists, step by step and queue by queue within a step,
//	      then one quarantine list a queue
//	ARGV  1 claim id, 2 most messages, 3 number of queues, 4 number of steps, 5 "1": the queues of a step share what is
//	      asked for, else the first is served first; then each queue's name as a JSON literal,
//	      then pairs: the id of an earlier claim whose reply was lost, and the place in it to go on from
//	reply {messages, errors, places}: messages are {tag, queue number, bytes}, with an empty tag for a quarantined one
//	      and queue number 0 and the whole unacked value for one that an earlier claim took; errors are {list, text};
//	      places are where to go on with each earlier claim, 0 when it has no more
//
// What earlier claims took is answered first, and alone. Each attempt has an id of its own, so that one which a dying
// connection delivers late cannot overwrite the entries of another; what it takes then expires with its lease.
//
// The messages are stored as they came: cjson only checks them (it would turn [] into {} and round big integers). What
// is not an envelope must not enter the hash, where it would block every Python sweep; it goes to quarantine. What has
// the shape in which kombu and Gelery write envelopes is not parsed here, which would take longer than all the rest;
// Receive parses it right after (DESIGN.md tells why that is enough). HLEN,
// ZCARD and LLEN fail on keys of the wrong type before anything is popped. The first message of a list is popped alone
// and tells how many of its size go in one reply of 4 MiB.
var claimScript = goredis.NewScript(`
local unacked, index = KEYS[1], KEYS[2]
local claim, max, nq, ns = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('HLEN', unacked)
redis.call('ZCARD', index)
for q = 1, nq do redis.call('LLEN', KEYS[2 + ns * nq + q]) end
local out, bad, places, bytes, count = {}, {}, {}, 0, 0
for a = 6 + nq, #ARGV, 2 do
  local place = tonumber(ARGV[a + 1])
  while place > 0 and #out < max and bytes < 4194304 do
    local tag = ARGV[a] .. ':' .. place
    local value = redis.call('HGET', unacked, tag)
    if value then
      out[#out + 1] = {tag, 0, value}
      bytes = bytes + #value
      place = place + 1
    else
      place = 0
    end
  end
  places[#places + 1] = place
end
if #out > 0 then return {out, bad, places} end
local t = redis.call('TIME')
local now = t[1] .. '.' .. string.format('%06d', tonumber(t[2]))
local sub, find = string.sub, string.find
local function envelope(msg)
  if sub(msg, 1, 10) == '{"body": "' and sub(msg, -2) == '}}' and find(msg, ', "headers": {', 11, true)
    and find(msg, ', "properties": {', 11, true) and find(msg, '"delivery_info": {', 11, true) then
    return true
  end
  local ok, m = pcall(cjson.decode, msg)
  if not ok then -- perhaps only for a lone surrogate, which Python writes and reads: any other escape is as good a check
    ok, m = pcall(cjson.decode, (string.gsub(msg, '\\u[dD][89a-fA-F]%x%x', '\\u0041')))
  end
  return ok and type(m) == 'table' and type(m['properties']) == 'table'
    and type(m['properties']['delivery_info']) == 'table'
    and (m['headers'] == nil or type(m['headers']) == 'table')
end
local function take(list, q, n)
  local got, chunk = 0, 1
  while got < n and bytes < 4194304 do
    local want = math.min(n - got, chunk)
    local msgs = redis.pcall('RPOP', list, want)
    if not msgs then break end
    if msgs.err then
      bad[#bad + 1] = {list, msgs.err}
      break
    end
    if #msgs == 0 then break end
    local fields, scores = {}, {}
    for _, msg in ipairs(msgs) do
      bytes = bytes + #msg
      if envelope(msg) then
        count = count + 1
        local tag = claim .. ':' .. count
        fields[#fields + 1] = tag
        fields[#fields + 1] = '[' .. msg .. ',"",' .. ARGV[5 + q] .. ']'
        scores[#scores + 1] = now
        scores[#scores + 1] = tag
        out[#out + 1] = {tag, q, msg}
      else
        redis.call('LPUSH', KEYS[2 + ns * nq + q], '{"time": ' .. now .. ', "reason": "not an envelope"}\n' .. msg)
        out[#out + 1] = {'', q, msg}
      end
    end
    if #fields > 0 then
      redis.call('HSET', unacked, unpack(fields))
      redis.call('ZADD', index, unpack(scores))
    end
    got = got + #msgs
    if #msgs < want then break end
    chunk = math.max(1, math.min(64, math.floor(2097152 / (bytes / #out))))
  end
  return got
end
local left = max
for s = 0, ns - 1 do
  if nq > 1 and ARGV[5] == '1' then
    local share = math.ceil(left / nq)
    for q = 1, nq do
      if left > 0 then left = left - take(KEYS[2 + s * nq + q], q, math.min(share, left)) end
    end
  end
  for q = 1, nq do
    if left > 0 then left = left - take(KEYS[2 + s * nq + q], q, left) end
  end
end
return {out, bad, places}
`)

// ackScript removes claims: Python's ZREM and HDEL, for a batch. Outside MULTI, so that it also works at maxmemory.
//
//	KEYS 1 unacked, 2 unacked_index   ARGV tags   reply: how many were still held
var ackScript = goredis.NewScript(`
redis.call('ZREM', KEYS[2], unpack(ARGV))
return redis.call('HDEL', KEYS[1], unpack(ARGV))
`)

// giveScript takes claims out of unacked and pushes each somewhere: back to its list, or to quarantine. A target of the
// wrong type is found out before anything is removed.
//
//	KEYS  1 unacked, 2 unacked_index, 3… one target list a claim
//	ARGV  for each claim: tag, RPUSH or LPUSH, what to push
//	reply {how many were still held and are pushed now, number (from 1) of a claim whose target refuses, …}
var giveScript = goredis.NewScript(`
local reply = {0}
for i = 0, #KEYS - 3 do
  local tag = ARGV[3 * i + 1]
  local length = redis.pcall('LLEN', KEYS[3 + i])
  if type(length) == 'table' then
    reply[#reply + 1] = i + 1
  elseif redis.call('HDEL', KEYS[1], tag) == 1 then
    redis.call('ZREM', KEYS[2], tag)
    redis.call(ARGV[3 * i + 2], KEYS[3 + i], ARGV[3 * i + 3])
    reply[1] = reply[1] + 1
  end
end
return reply
`)

// renewScript moves held claims to now in unacked_index. It removes before it adds, and only adds what was there: a
// lone ZADD is refused at maxmemory, and a claim that someone restored must not come back to life. What lies in the
// future has been delayed meanwhile and stays there.
//
//	KEYS 1 unacked_index   ARGV tags   reply: the numbers (from 1) of the tags that were gone
var renewScript = goredis.NewScript(`
local t = redis.call('TIME')
local now = t[1] .. '.' .. string.format('%06d', tonumber(t[2]))
local lost = {}
for i, tag in ipairs(ARGV) do
  local score = redis.call('ZSCORE', KEYS[1], tag)
  if not score then
    lost[#lost + 1] = i
  elseif tonumber(score) <= tonumber(now) then
    redis.call('ZREM', KEYS[1], tag)
    redis.call('ZADD', KEYS[1], now, tag)
  end
end
return lost
`)

// delayScript lets held claims be until their time. Each stays in unacked, where Python's sweep leaves it alone until its
// score is a visibility timeout old, and is noted in the set from which a timekeeper takes it. It removes before it adds,
// as at maxmemory a lone ZADD is refused. Within a call, one millionth of a second keeps equal times in their order. The
// sets live a day longer than what is in them, lest they outlive the last Go worker; without one its messages come back
// late, by a sweep.
//
//	KEYS  1 unacked_index, 2… the set a claim goes to, one a claim
//	ARGV  for each claim: tag, seconds from now
//	reply the numbers (from 1) of the claims whose set is none; those that were gone are let go
var delayScript = goredis.NewScript(`
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local refused, longest = {}, {}
for i = 1, #KEYS - 1 do
  local set, tag, after = KEYS[i + 1], ARGV[2 * i - 1], tonumber(ARGV[2 * i])
  if type(redis.pcall('ZCARD', set)) == 'table' then
    refused[#refused + 1] = i
  elseif redis.call('ZREM', KEYS[1], tag) == 1 then
    local eta = string.format('%.6f', now + after + i / 1000000)
    redis.call('ZADD', KEYS[1], eta, tag)
    redis.call('ZADD', set, eta, tag)
    longest[set] = math.max(longest[set] or 0, after)
  end
end
for set, after in pairs(longest) do
  local life = math.ceil(after) * 1000 + 86400000
  if redis.call('PTTL', set) < life then redis.call('PEXPIRE', set, life) end
end
return refused
`)

// dueScript moves what is due from unacked to the front of its list, the oldest first in line, unmarked: a delay is no
// failed delivery. Those that stand there already stay before them: they are lifted off and put back. While they are too
// many for that, what comes later waits in its set; what has waited for seconds, because more is due than is done, goes to
// the back of the list instead. That a message stands in front for its eta is seen by its having one.
//
//	KEYS  1 unacked, 2 unacked_index, then for each list, step by step and queue by queue: its set of delayed, the list
//	ARGV  1 most messages a list, 2 how many may stand in front, 3 seconds they may be held back, 4 number of queues,
//	      then each queue's name as a JSON literal
//	reply {how many were moved, seconds until the next is due ("" if there is none), 1 if some were held back or left,
//	      {key, error, …}}
//
// What is in a set and not in unacked has been settled or restored; what is there in another form than a claim's is left
// to the sweep.
var dueScript = goredis.NewScript(`
local unacked, index = KEYS[1], KEYS[2]
local most, room, patience, nq = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('HLEN', unacked)
redis.call('ZCARD', index)
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local moved, next, left, bad, bytes = 0, nil, 0, {}, 0
local function timed(msg)
  return string.find(msg, '"eta": "', 1, true) or string.find(msg, '"eta":"', 1, true)
end
local function move(set, list, suffix, upto, command)
  local tags, gone, out = {}, {}, {}
  local due = redis.call('ZRANGEBYSCORE', set, '-inf', string.format('%.6f', upto), 'LIMIT', 0, most)
  for _, tag in ipairs(due) do
    if bytes > 4194304 then break end
    local value = redis.call('HGET', unacked, tag)
    tags[#tags + 1] = tag
    if not value then
      gone[#gone + 1] = tag
    elseif string.sub(value, 1, 1) == '[' and string.sub(value, -#suffix) == suffix then
      gone[#gone + 1] = tag
      out[#out + 1] = string.sub(value, 2, -#suffix - 1)
      bytes = bytes + #value
    end
  end
  if #tags == most or #tags < #due then left = 1 end
  if #tags > 0 then redis.call('ZREM', set, unpack(tags)) end
  if #gone > 0 then
    redis.call('ZREM', index, unpack(gone))
    redis.call('HDEL', unacked, unpack(gone))
  end
  if #out > 0 then
    moved = moved + #out
    local front = {}
    if command == 'RPUSH' then
      for i = 1, math.floor(#out / 2) do out[i], out[#out + 1 - i] = out[#out + 1 - i], out[i] end
      for i = 1, room do
        local msg = redis.call('LINDEX', list, -1)
        if not msg or not timed(msg) then break end
        front[i] = redis.call('RPOP', list)
      end
    end
    redis.call(command, list, unpack(out))
    for i = #front, 1, -1 do redis.call('RPUSH', list, front[i]) end
  end
end
for k = 3, #KEYS, 2 do
  local set, list = KEYS[k], KEYS[k + 1]
  local first = redis.pcall('ZRANGE', set, 0, 0, 'WITHSCORES')
  local length = redis.pcall('LLEN', list)
  if first.err then
    bad[#bad + 1] = set
    bad[#bad + 1] = first.err
  elseif #first > 0 and tonumber(first[2]) <= now then
    if type(length) == 'table' then
      bad[#bad + 1] = list
      bad[#bad + 1] = length.err
    else
      local suffix = ',"",' .. ARGV[5 + ((k - 3) / 2) % nq] .. ']'
      local before = redis.call('LINDEX', list, -room)
      if before and timed(before) then
        left = 1
        if tonumber(first[2]) <= now - patience then move(set, list, suffix, now - patience, 'LPUSH') end
      else
        move(set, list, suffix, now, 'RPUSH')
      end
      first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
    end
  end
  if not first.err and #first > 0 then next = math.min(next or math.huge, tonumber(first[2])) end
end
return {moved, next and string.format('%.6f', next - now) or '', left, bad}
`)

// forgetScript removes what is delayed, to come back to a list.
//
//	KEYS 1 unacked, 2 unacked_index, 3 the list's set of delayed   ARGV 1 most at once
//	reply {how many messages were removed, how many are left in the set}
var forgetScript = goredis.NewScript(`
redis.call('ZCARD', KEYS[2])
redis.call('HLEN', KEYS[1])
local tags, n = redis.call('ZRANGE', KEYS[3], 0, tonumber(ARGV[1]) - 1), 0
if #tags > 0 then
  redis.call('ZREM', KEYS[3], unpack(tags))
  redis.call('ZREM', KEYS[2], unpack(tags))
  n = redis.call('HDEL', KEYS[1], unpack(tags))
end
return {n, redis.call('ZCARD', KEYS[3])}
`)

// beginScript replaces the envelope of a claim if it is still held as it was. It removes before it adds, as HSET alone is
// refused at maxmemory.
//
//	KEYS 1 unacked   ARGV 1 tag, 2 value as recorded, 3 value to record   reply 1: it is recorded, 0: the claim is gone
var beginScript = goredis.NewScript(`
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value == ARGV[3] then return 1 end
if value ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
`)

// expiredScript lists claims that nobody renews any more, oldest first: Go's own by the lease, all others by the
// visibility timeout.
//
//	KEYS 1 unacked, 2 unacked_index
//	ARGV 1 visibility timeout in seconds, 2 lease in seconds, 3 prefix of Go's tags, 4 where to go on (offset), 5 page
//	reply {members looked at (fewer when 4 MiB of values have come together), {tag, score, value, tag, score, value, …}}; an entry without a value is removed from
//	the index on the way, as kombu leaves such behind
var expiredScript = goredis.NewScript(`
local t = redis.call('TIME')
local now = tonumber(t[1]) + tonumber(t[2]) / 1000000
local old, lease = now - tonumber(ARGV[1]), now - tonumber(ARGV[2])
local prefix = ARGV[3]
local page = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.6f', math.max(old, lease)), 'WITHSCORES',
  'LIMIT', ARGV[4], ARGV[5])
local out, bytes = {}, 0
for i = 1, #page, 2 do
  if bytes > 4194304 then return {i / 2, out} end
  local tag, score = page[i], tonumber(page[i + 1])
  local own = string.sub(tag, 1, #prefix) == prefix
  if (own and score <= lease) or (not own and score <= old) then
    local value = redis.call('HGET', KEYS[1], tag)
    if value then
      bytes = bytes + #value
      out[#out + 1] = tag
      out[#out + 1] = page[i + 1]
      out[#out + 1] = value
    else
      redis.call('ZREM', KEYS[2], tag)
    end
  end
end
return {#page / 2, out}
`)

// restoreScript gives expired claims back: each only if it is still the same claim, with the same value, not renewed
// meanwhile, and if all its targets are lists. It needs no lock and no WATCH, so any number of sweepers, Python's
// included, may race. All in one step, so that a consumer that waits does not take the newest, which is pushed first,
// before the oldest is back.
//
//	KEYS 1 unacked, 2 unacked_index, 3… targets, in the order of the claims
//	ARGV for each claim: tag, score as read, value as read, push command, what to push, number of targets
//	reply {how many were restored, a target that is no list, …}
var restoreScript = goredis.NewScript(`
local reply, target = {0}, 3
for i = 1, #ARGV, 6 do
  local tag, n = ARGV[i], tonumber(ARGV[i + 5])
  local lists = true
  for t = target, target + n - 1 do
    if type(redis.pcall('LLEN', KEYS[t])) == 'table' then
      lists = false
      reply[#reply + 1] = KEYS[t]
    end
  end
  if lists and redis.call('ZSCORE', KEYS[2], tag) == ARGV[i + 1] and redis.call('HGET', KEYS[1], tag) == ARGV[i + 2] then
    redis.call('ZREM', KEYS[2], tag)
    redis.call('HDEL', KEYS[1], tag)
    for t = target, target + n - 1 do redis.call(ARGV[i + 3], KEYS[t], ARGV[i + 4]) end
    reply[1] = reply[1] + 1
  end
  target = target + n
end
return reply
`)

// publishScript pushes a batch once. A publisher numbers its batches and leaves the last number behind: a
// batch sent again after a lost reply, or delivered late by a dying connection, is recognized and does nothing.
//
//	KEYS 1 the publisher's marker, 2… lists   ARGV 1 number of this batch, 2 seconds the marker lives,
//	then for each list: how many envelopes, and the envelopes
//	reply {} if all is in its lists, now or before; else {list number (from 1), error, …} of the lists that refused, also
//	when asked again; or an error if all did, and then nothing was pushed and no number left
var publishScript = goredis.NewScript(`
local last, refused = string.match(redis.call('GET', KEYS[1]) or '0 ', '^(%d+) (.*)$')
if tonumber(last) >= tonumber(ARGV[1]) then
  if refused == '' then return {} end
  return cjson.decode(refused)
end
local at, errors = 3, {}
for i = 2, #KEYS do
  local n = tonumber(ARGV[at])
  local pushed = redis.pcall('LPUSH', KEYS[i], unpack(ARGV, at + 1, at + n))
  if type(pushed) == 'table' then
    errors[#errors + 1] = i - 1
    errors[#errors + 1] = pushed.err
  end
  at = at + n + 1
end
if #errors == 2 * (#KEYS - 1) then return redis.error_reply(errors[2]) end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. (#errors > 0 and cjson.encode(errors) or ''), 'EX', ARGV[2])
return errors
`)
