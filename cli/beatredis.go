package cli

import (
	"context"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/redbeat"
	"github.com/gelery/gelery/settings"
)

func init() { beatStores[settings.RedBeatScheduler] = openRedBeat }

func openRedBeat(ctx context.Context, o *beatOpening) (scheduler.Store, string, error) {
	c := redbeat.Config{URL: o.config.RedisURL, Options: o.config.RedisOptions, Prefix: o.config.KeyPrefix, LockKey: o.config.LockKey,
		NoLock: o.config.NoLock, LockTimeout: o.config.LockTimeout, Zone: o.config.Zone, Logger: o.log}
	if c.URL == "" {
		if c.URL = o.redis; c.URL == "" {
			return nil, "", usage("the scheduler redbeat needs a Redis", "the broker is none, and redbeat_redis_url is not set",
				"set redbeat_redis_url, or CELERY_REDBEAT_REDIS_URL, or take another --scheduler")
		}
		if c.Options == nil {
			c.Options = o.options
		}
	}
	if o.lead {
		c.Static, c.Unreadable = o.entries, o.unreadable
		if c.Static == nil {
			c.Static = []*scheduler.Entry{} // what was static before is to go
		}
	}
	store, err := redbeat.Open(ctx, c)
	if err != nil {
		return nil, "", storeFailure(ctx, err, "Redis of the schedule", c.URL, "redbeat_redis_url")
	}
	return store, brokerurl.Redact(c.URL), nil
}
