package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/transport"
)

// maxRecalled bounds what one Recall reads, whoever has written the set.
const maxRecalled = 1_000_000

// rememberScript notes members with Redis's clock, so that no other clock matters. What must go is removed first: at
// maxmemory Redis refuses scripts whose first write needs memory.
//
//	KEYS  1 the set
//	ARGV  1 seconds kept, 2 most members, then the members
var rememberScript = goredis.NewScript(`
local t = redis.call('TIME')
local now = t[1] .. '.' .. string.format('%06d', tonumber(t[2]))
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', tonumber(now) - tonumber(ARGV[1])))
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now, ARGV[i]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(tonumber(ARGV[2]) + 1))
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[1])))
return 1`)

// recallScript reads what was noted within a time.
//
//	KEYS  1 the set
//	ARGV  1 seconds, 2 most members
//	reply Redis's time, then members and their scores in turn, the youngest first
var recallScript = goredis.NewScript(`
local t = redis.call('TIME')
local now = t[1] .. '.' .. string.format('%06d', tonumber(t[2]))
local out = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', string.format('%.6f', tonumber(now) - tonumber(ARGV[1])),
  'WITHSCORES', 'LIMIT', 0, ARGV[2])
table.insert(out, 1, now)
return out`)

var _ transport.Keeper = (*redisTransport)(nil)

// kept is a set that all workers read, _gelery.revoked for one: members by the time they were put there. Gelery's own.
func (k *keys) kept(set string) string { return k.prefix + "_gelery." + set }

// Remember implements transport.Keeper.
func (t *redisTransport) Remember(ctx context.Context, set string, members []string, b transport.KeeperBounds) error {
	const most = 1000 // a script, and its arguments on Lua's stack, have bounds
	for begin := 0; begin < len(members); begin += most {
		args := []any{strconv.FormatFloat(b.Age.Seconds(), 'f', 6, 64), b.Members}
		for _, m := range members[begin:min(begin+most, len(members))] {
			args = append(args, m)
		}
		if err := redisconn.Do(ctx, t.log, "remember "+set, func(ctx context.Context) error {
			return rememberScript.Run(ctx, t.commands, []string{t.keys.kept(set)}, args...).Err()
		}); err != nil {
			return err
		}
	}
	return nil
}

// Recall implements transport.Keeper.
func (t *redisTransport) Recall(ctx context.Context, set string, within time.Duration) ([]transport.Remembered, error) {
	var reply []string
	err := redisconn.Do(ctx, t.log, "recall "+set, func(ctx context.Context) (err error) {
		reply, err = recallScript.Run(ctx, t.commands, []string{t.keys.kept(set)},
			strconv.FormatFloat(within.Seconds(), 'f', 6, 64), maxRecalled).StringSlice()
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(reply)%2 != 1 {
		return nil, fmt.Errorf("recall %s: redis answered with %d values", set, len(reply))
	}
	now, err := strconv.ParseFloat(reply[0], 64)
	if err != nil {
		return nil, fmt.Errorf("recall %s: %w", set, err)
	}
	out := make([]transport.Remembered, 0, len(reply)/2)
	for i := 1; i < len(reply); i += 2 {
		at, err := strconv.ParseFloat(reply[i+1], 64)
		if err != nil {
			return nil, fmt.Errorf("recall %s: %w", set, err)
		}
		age := min(max(now-at, 0), within.Seconds())
		out = append(out, transport.Remembered{Member: reply[i], Age: time.Duration(age * float64(time.Second))})
	}
	return out, nil
}
