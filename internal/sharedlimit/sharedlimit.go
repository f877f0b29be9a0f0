// Package sharedlimit keeps limits in Redis that many workers share: rates, and numbers of runs at once. It keeps nothing
// in the process; whoever asks has to remember what he got.
package sharedlimit

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
)

// replyTimeout bounds a call, so that a lease is renewed in time although a reply got lost.
const replyTimeout = 3 * time.Second

// Limits is one worker's access to the limits.
type Limits struct {
	client redis.UniversalClient
	prefix string // of keys
	worker string
	log    *slog.Logger
}

// New makes the access of a worker, whose name must be its own. It connects when first used.
func New(c *redisconn.Config, prefix, worker string, log *slog.Logger) *Limits {
	client := c.Client(redisconn.ClientOptions{PoolSize: 4, ReadTimeout: replyTimeout})
	return &Limits{client: client, prefix: prefix + "_gelery.limit.", worker: worker, log: log}
}

// Close closes the connection.
func (l *Limits) Close() error { return l.client.Close() }

// reserveScript takes turns of a rate, one every interval, none of them more than the horizon ahead. No turn is saved up:
// those of the past are gone. A next turn that lies further ahead than this rate ever reserves is of a slower rate or
// another clock, and forgotten.
//
//	KEYS  1 when the next turn is, 2 who asked lately
//	ARGV  1 interval, 2 most turns, 3 horizon, 4 worker, 5 how long who asked is remembered
//	reply {turns, time until the first, time until another one can be had, how many workers ask}
//
// All times are in microseconds, those stored of Redis's clock.
var reserveScript = redis.NewScript(`
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local interval, want, horizon, memory = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local turn = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
if turn < now or turn > now + horizon + 2 * interval then turn = now end
local n, first = 0, turn
if turn <= now + horizon then
  n = math.min(want, math.floor((now + horizon - turn) / interval) + 1)
end
if n > 0 then
  turn = turn + n * interval
  redis.call('SET', KEYS[1], string.format('%.17g', turn), 'PX', string.format('%.0f', (turn - now) / 1000 + 60000))
end
redis.call('ZADD', KEYS[2], string.format('%.0f', now), ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - memory))
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', memory / 1000 + 60000))
return {n, string.format('%.0f', first - now), string.format('%.0f', math.max(0, turn - horizon - now)), redis.call('ZCARD', KEYS[2])}
`)

// Turns are what Reserve got.
type Turns struct {
	N       int
	First   time.Duration // from when the reply came until the first of them; the others follow one interval apart
	Again   time.Duration // after which another one can be had
	Workers int           // who have asked lately, this one included
}

// Reserve takes at most n turns of a rate, one in each interval, that come within the horizon.
func (l *Limits) Reserve(ctx context.Context, name string, interval, horizon time.Duration, n int) (Turns, error) {
	memory := max(3*time.Second, min(2*interval, 5*time.Minute))
	keys := []string{l.prefix + name + ".rate", l.prefix + name + ".workers"}
	reply, err := reserveScript.Run(ctx, l.client, keys, float64(interval)/1e3, n, horizon.Microseconds(), l.worker, memory.Microseconds()).Slice()
	if err != nil {
		return Turns{}, err
	}
	numbers, err := integers(reply, 4)
	if err != nil {
		return Turns{}, err
	}
	return Turns{N: int(numbers[0]), First: microseconds(numbers[1]), Again: microseconds(numbers[2]), Workers: int(numbers[3])}, nil
}

// holdScript tells how many runs of a limit this worker has, and takes more if there are any left. What a worker says of
// itself is taken for true, so that a repeated call does no harm and a Redis that has lost all knows it again soon. Who has
// no run is served before who has some.
//
//	KEYS  1 a hash: worker -> "runs wanted until"
//	ARGV  1 worker, 2 runs that it has, 3 that it wants to have, 4 limit, 5 lease, 6 lease of who has none
//	reply {runs that it may have, workers that want some and have none, workers}
//
// All times are in microseconds of Redis's clock.
var holdScript = redis.NewScript(`
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local has, wants, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local all = redis.call('HGETALL', KEYS[1])
local taken, starving, workers = 0, 0, 1
for i = 1, #all, 2 do
  local n, want, till = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
  if not n or tonumber(till) <= now then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= ARGV[1] then
    taken = taken + tonumber(n)
    workers = workers + 1
    if n == '0' and want ~= '0' then starving = starving + 1 end
  end
end
local free = limit - taken
if has > 0 then free = free - starving end
local n = math.max(has, math.min(wants, free))
if n < 0 then n = 0 end
if n == 0 and wants == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  local lease = n == 0 and ARGV[6] or ARGV[5]
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %.0f', n, wants, now + tonumber(lease)))
  redis.call('PEXPIRE', KEYS[1], 60000)
end
return {string.format('%.0f', n), starving, workers}
`)

// Lease is how long the runs of a worker are held that does not renew them.
const Lease = 10 * time.Second

// waitingLease is how long a worker without a run is served first.
const waitingLease = 2 * time.Second

// Runs are what Hold got.
type Runs struct {
	N        int // runs that this worker may have
	Starving int // workers that want some and have none
	Workers  int // that have or want some, this one included
}

// Hold tells that this worker has so many runs under a limit of runs at once, and takes up to want if there are any
// left. It holds them for a Lease, if it does not call again.
func (l *Limits) Hold(ctx context.Context, name string, limit, has, want int) (Runs, error) {
	reply, err := holdScript.Run(ctx, l.client, []string{l.prefix + name + ".runs"}, l.worker, has, want, limit,
		Lease.Microseconds(), waitingLease.Microseconds()).Slice()
	if err != nil {
		return Runs{}, err
	}
	numbers, err := integers(reply, 3)
	if err != nil {
		return Runs{}, err
	}
	return Runs{N: int(numbers[0]), Starving: int(numbers[1]), Workers: int(numbers[2])}, nil
}

// Do calls f until it succeeds or ctx is done (false). Whatever Redis says, there is nothing else to do than to wait: a
// limit is a promise. What says what waits.
func (l *Limits) Do(ctx context.Context, what string, f func(context.Context) error) bool {
	for {
		err := redisconn.Do(ctx, l.log, what, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, replyTimeout)
			defer cancel()
			return f(ctx)
		}, redisconn.RetryFull)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		l.log.Error("a shared limit cannot be kept, so its tasks wait", "doing", what, "error", err)
		pause := time.NewTimer(fatalPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return false
		}
	}
}

// fatalPause is the wait after an error of which asking again is no cure: a key of the wrong type, a password.
const fatalPause = 5 * time.Second

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// integers reads a reply of so many numbers, some of which are text, because Lua's own become 32 or 64 bits as they like.
func integers(reply []any, n int) ([]int64, error) {
	if len(reply) != n {
		return nil, fmt.Errorf("the script replied %v", reply)
	}
	out := make([]int64, n)
	for i, v := range reply {
		switch v := v.(type) {
		case int64:
			out[i] = v
		case string:
			if _, err := fmt.Sscan(v, &out[i]); err != nil {
				return nil, fmt.Errorf("the script replied %v: %w", reply, err)
			}
		}
	}
	return out, nil
}
