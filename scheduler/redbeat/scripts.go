package redbeat

import goredis "github.com/redis/go-redis/v9"

// Every script that writes for a lease begins with asking whether the lock is still ours, so that what a leader that was frozen does
// when it wakes does nothing. A token "" asks nothing: there is no lock.

// leadScript takes the lock if it is free, or ours by a request whose reply was lost.
//
//	KEYS 1 lock   ARGV 1 token, 2 milliseconds   reply {1} or {0, whose it is}
var leadScript = goredis.NewScript(`
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return {0, owner} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1}
`)

// extendScript makes the lock last anew: RedBeat's own rule.
//
//	KEYS 1 lock   ARGV 1 token, 2 milliseconds   reply 1, or 0 if it is not ours
var extendScript = goredis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
`)

// releaseScript gives the lock back.
//
//	KEYS 1 lock   ARGV 1 token
var releaseScript = goredis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
`)

// markScript notes what becomes of entries and the runs that are about to be sent, all or nothing. An entry that is not as it was
// when it was looked at is found out before anything is written.
//
//	KEYS  1 lock, 2 schedule, 3 due (ours), 4 pending, 5 latest, then the entries
//	ARGV  1 token, 2 latest moment in ms ("0": none), then for each entry: meta as it was, SHA-1 of definition, a zero byte
//	      and extra, meta as it will be, score, "1": RedBeat leaves it alone, definition and extra ("": as they are);
//	      then pairs: id of a run, run
//	reply 0, -1: the lock is not ours, or the number of an entry that was changed, from 1
var markScript = goredis.NewScript(`
local token = ARGV[1]
if token ~= '' and redis.call('GET', KEYS[1]) ~= token then return -1 end
redis.call('ZCARD', KEYS[2]) redis.call('ZCARD', KEYS[3]) redis.call('HLEN', KEYS[4])
local at = 2
for i = 6, #KEYS do
  local now = redis.call('HMGET', KEYS[i], 'meta', 'definition', 'gelery')
  if (now[1] or '') ~= ARGV[at + 1] or not now[2] or redis.sha1hex(now[2] .. '\0' .. (now[3] or '')) ~= ARGV[at + 2] then return i - 5 end
  at = at + 7
end
at = 2
for i = 6, #KEYS do
  redis.call('HSET', KEYS[i], 'meta', ARGV[at + 3])
  if ARGV[at + 6] ~= '' then redis.call('HSET', KEYS[i], 'definition', ARGV[at + 6]) end
  if ARGV[at + 7] ~= '' then redis.call('HSET', KEYS[i], 'gelery', ARGV[at + 7]) end
  local score, zset = ARGV[at + 4], KEYS[2]
  if ARGV[at + 5] == '1' then zset = KEYS[3] end
  redis.call('ZADD', zset, score, KEYS[i])
  at = at + 7
end
for i = at + 1, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
if tonumber(ARGV[2]) > tonumber(redis.call('GET', KEYS[5]) or '0') then redis.call('SET', KEYS[5], ARGV[2]) end
return 0
`)

// doneScript forgets runs that are with the broker. It does so also for who no longer leads, since it is true.
//
//	KEYS 1 lock, 2 pending   ARGV 1 token, then ids   reply 0, or -1: the lock is not ours
var doneScript = goredis.NewScript(`
for i = 2, #ARGV, 1000 do redis.call('HDEL', KEYS[2], unpack(ARGV, i, math.min(i + 999, #ARGV))) end
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
return 0
`)

// pendingScript tells the runs that were marked and not reported as done.
//
//	KEYS 1 lock, 2 pending   ARGV 1 token   reply {id, run, …}, or -1: the lock is not ours
var pendingScript = goredis.NewScript(`
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
return redis.call('HGETALL', KEYS[2])
`)

// asideScript takes a pending run that cannot be read out of the way.
//
//	KEYS 1 pending, 2 quarantine   ARGV 1 id
var asideScript = goredis.NewScript(`
local run = redis.call('HGET', KEYS[1], ARGV[1])
if run then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('LPUSH', KEYS[2], run)
end
return 0
`)

// postponeScript moves entries that are paused out of the way, and takes out members without an entry, as RedBeat does.
//
//	KEYS  1 lock, then pairs: zset, entry
//	ARGV  1 token, 2 score, then for each pair the score as it was
//	reply 0, or -1: the lock is not ours
var postponeScript = goredis.NewScript(`
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
for i = 2, #KEYS, 2 do
  local score = redis.call('ZSCORE', KEYS[i], KEYS[i + 1])
  if score and tonumber(score) == tonumber(ARGV[2 + i / 2]) then
    if redis.call('HEXISTS', KEYS[i + 1], 'definition') == 0 then
      redis.call('ZREM', KEYS[i], KEYS[i + 1])
    else
      redis.call('ZADD', KEYS[i], ARGV[2], KEYS[i + 1])
    end
  end
end
return 0
`)

// putScript writes an entry that is still as it was read.
//
//	KEYS  1 schedule, 2 due (ours), 3 entry, 4 statics, 5 lock
//	ARGV  definition, meta and extra as they were ("": not there), and as they will be; 7 score of RedBeat's, 8 score of ours
//	      ("": it has none), 9 name if it is one of beat_schedule, else "", 10 token
//	reply 1, 0 if it was changed, or -1: the lock is not ours
var putScript = goredis.NewScript(`
if ARGV[10] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[10] then return -1 end
redis.call('ZCARD', KEYS[1]) redis.call('ZCARD', KEYS[2]) redis.call('SCARD', KEYS[4])
local now = redis.call('HMGET', KEYS[3], 'definition', 'meta', 'gelery')
for i = 1, 3 do if (now[i] or '') ~= ARGV[i] then return 0 end end
redis.call('HSET', KEYS[3], 'definition', ARGV[4], 'meta', ARGV[5])
if ARGV[6] == '' then redis.call('HDEL', KEYS[3], 'gelery') else redis.call('HSET', KEYS[3], 'gelery', ARGV[6]) end
redis.call('ZADD', KEYS[1], ARGV[7], KEYS[3])
if ARGV[8] == '' then redis.call('ZREM', KEYS[2], KEYS[3]) else redis.call('ZADD', KEYS[2], ARGV[8], KEYS[3]) end
if ARGV[9] ~= '' then redis.call('SADD', KEYS[4], ARGV[9]) end
return 1
`)

// removeScript removes an entry.
//
//	KEYS 1 schedule, 2 due (ours), 3 entry, 4 statics, 5 lock   ARGV 1 name, 2 token
//	reply 0: it was not there, more if it was, or -1: the lock is not ours
var removeScript = goredis.NewScript(`
if ARGV[2] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[2] then return -1 end
redis.call('SREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[2], KEYS[3])
return redis.call('ZREM', KEYS[1], KEYS[3]) + redis.call('DEL', KEYS[3])
`)
