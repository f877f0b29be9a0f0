package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// ledger is the Redis in which the tasks leave their traces.
var ledger = sync.OnceValue(func() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: net.JoinHostPort(cmp.Or(os.Getenv("REDIS_HOST"), "localhost"), cmp.Or(os.Getenv("REDIS_PORT"), "6379")),
	})
})

// echo adds to a list of the ledger, by default "redis-echo".
func echo(ctx context.Context, message any, key string) error {
	return ledger().RPush(ctx, key, message).Err()
}

// count counts a number of the ledger up, by default "redis-count".
func count(ctx context.Context, key string) error { return ledger().Incr(ctx, key).Err() }

type echoArgs struct {
	Message any
	Key     string `task:"redis_key,default=redis-echo"`
}

type countArgs struct {
	Key string `task:"redis_key,default=redis-count"`
}

type echoGroupArgs struct {
	Before any    `task:"_"`
	Key    string `task:"redis_key,default=redis-group-ids"`
}

type printArgs struct {
	Log   string `task:"log_message,default=håå®ƒ valmuefrø"`
	Print string `task:"print_message,default=hiöäüß"`
}

// traces are the tasks that leave something behind for the tests to find.
func traces(mux *worker.Mux) {
	worker.Handle(mux, task.Define[echoArgs, task.NoResult](name("redis_echo")), func(ctx context.Context, a echoArgs) (task.NoResult, error) {
		return task.NoResult{}, echo(ctx, a.Message, a.Key)
	})
	worker.Handle(mux, task.Define[echoGroupArgs, task.NoResult](name("redis_echo_group_id")), func(ctx context.Context, a echoGroupArgs) (task.NoResult, error) {
		info, _ := task.FromContext(ctx)
		return task.NoResult{}, echo(ctx, info.Group, a.Key)
	})
	worker.Handle(mux, task.Define[countArgs, task.NoResult](name("redis_count")), func(ctx context.Context, a countArgs) (task.NoResult, error) {
		return task.NoResult{}, count(ctx, a.Key)
	})
	worker.Handle(mux, task.Define[printArgs, task.NoResult](name("print_unicode")), func(ctx context.Context, a printArgs) (task.NoResult, error) {
		task.Logger(ctx).Warn(a.Log)
		_, err := fmt.Fprintln(os.Stdout, a.Print)
		return task.NoResult{}, err
	})
}
