package redis

import (
	"context"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
)

// onceLife is how long is known that a message was there: a beat that was frozen while it sent, or one that takes over from it, sends
// again within seconds. Each message costs about 200 bytes for so long.
const onceLife = 15 * time.Minute

// onceScript pushes each envelope unless its key tells that it was pushed before, by whatever client.
//
//	KEYS for each envelope: its key, its list   ARGV 1 seconds the keys live, then the envelopes
//	reply {} or {number of the envelope (from 1), error, …} of those that their lists refused, which are not there
var onceScript = goredis.NewScript(`
local errors = {}
for i = 2, #ARGV do
  local key, list = KEYS[2 * i - 3], KEYS[2 * i - 2]
  if redis.call('EXISTS', key) == 0 then
    local pushed = redis.pcall('LPUSH', list, ARGV[i])
    if type(pushed) == 'table' then
      errors[#errors + 1] = i - 1
      errors[#errors + 1] = pushed.err
    else
      redis.call('SET', key, 1, 'EX', ARGV[1])
    end
  end
end
return errors
`)

// pushOnce pushes a chunk of messages each of which may be there already. The error is the first one's that was refused.
func (t *redisTransport) pushOnce(ctx context.Context, out []outgoing) (inDoubt bool, err error) {
	keys := make([]string, 0, 2*len(out))
	args := make([]any, 1, len(out)+1)
	args[0] = int(onceLife / time.Second)
	for _, o := range out {
		keys = append(keys, o.once, o.list)
		args = append(args, o.envelope)
	}
	err = redisconn.Do(ctx, t.log, "publish", func(ctx context.Context) error {
		var err error
		refused, err := onceScript.Run(ctx, t.publishes, keys, args...).Slice()
		inDoubt = inDoubt || redisconn.InDoubt(err)
		if err == nil && len(refused) > 1 {
			if i, ok := refused[0].(int64); ok { // a reply's error, by whose code it is known what to do
				err = fmt.Errorf("push to list %q: %w", out[i-1].list, refusal(fmt.Sprint(refused[1])))
			}
		}
		return err
	})
	return inDoubt, err
}

// refusal is an error that a script has caught: Redis's own, as redisconn classifies them.
type refusal string

func (r refusal) Error() string { return string(r) }

// RedisError is redis.Error's.
func (refusal) RedisError() {}
