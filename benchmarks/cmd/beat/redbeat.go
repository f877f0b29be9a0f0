package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisserver"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/redbeat"
)

// inRedis is RedBeat's schedule in a redis-server of its own, written as Python writes it.
type inRedis struct {
	redis *redisserver.Server
}

func newRedBeat(ctx context.Context, _ string) (place, error) {
	server, err := redisserver.Start(ctx)
	return &inRedis{redis: server}, err
}

func (p *inRedis) fill(ctx context.Context, t *trial) error {
	options, err := redis.ParseURL(p.redis.URL)
	if err != nil {
		return err
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	if err := client.FlushDB(ctx).Err(); err != nil {
		return err
	}
	for first := 0; first < t.entries; first += 1000 {
		pipe := client.Pipeline()
		for i := first; i < min(first+1000, t.entries); i++ {
			p.write(ctx, pipe, t, i, fmt.Sprintf("[%d]", i))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *inRedis) write(ctx context.Context, to redis.Pipeliner, t *trial, i int, args string) {
	schedule, score := `{"__type__": "crontab", "minute": "0", "hour": "0", "day_of_week": "*", "day_of_month": "29", "month_of_year": "2"}`, nextLeapDay()
	last := t.last(i)
	if t.every > 0 {
		schedule = fmt.Sprintf(`{"__type__": "interval", "every": %d, "relative": false}`, t.every)
		score = last.Add(time.Duration(t.every) * time.Second)
	}
	key := redbeat.DefaultPrefix + entryName(i)
	to.HSet(ctx, key, "definition", fmt.Sprintf(`{"name": %q, "task": "bench.one", "args": %s, "kwargs": {}, "options": {}, "schedule": %s, "enabled": true}`, entryName(i), args, schedule),
		"meta", fmt.Sprintf(`{"last_run_at": {"__type__": "datetime", "year": %d, "month": %d, "day": %d, "hour": %d, "minute": %d, "second": %d, "microsecond": %d, "timezone": "UTC"}, "total_run_count": 1}`,
			last.Year(), last.Month(), last.Day(), last.Hour(), last.Minute(), last.Second(), last.Nanosecond()/1000))
	to.ZAdd(ctx, redbeat.DefaultPrefix+":schedule", redis.Z{Score: float64(score.Unix()), Member: key})
}

func nextLeapDay() time.Time {
	for year := time.Now().Year(); ; year++ {
		if at := time.Date(year, 2, 29, 0, 0, 0, 0, time.UTC); at.Day() == 29 && at.After(time.Now()) {
			return at
		}
	}
}

func (p *inRedis) open(ctx context.Context, log *slog.Logger) (scheduler.Store, error) {
	return redbeat.Open(ctx, redbeat.Config{URL: p.redis.URL, Logger: log})
}

func (*inRedis) changes() map[string]func(ctx context.Context, n int) error { return nil } // its leader looks at what is due soon only
func (p *inRedis) server() (string, int)                                    { return "redis-server", p.redis.Pid() }
func (p *inRedis) close() error                                             { return p.redis.Stop() }
