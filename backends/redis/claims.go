package redis

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/redisconn"
)

var _ backends.Claimer = (*Backend)(nil)

// claimScript takes a name for a holder, unless another has it.
var claimScript = redis.NewScript(`
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX')
if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
return 0`)

// Claim is backends.Claimer's.
func (b *Backend) Claim(ctx context.Context, name, holder string) (bool, error) {
	var has bool
	err := redisconn.Do(ctx, b.log, "claim "+name, func(ctx context.Context) (err error) {
		has, err = claimScript.Run(ctx, b.client, []string{b.global + "_gelery.claim." + name}, holder, int(b.markTTL()/time.Second)).Bool()
		return err
	}, redisconn.RetryFull)
	return has, err
}
