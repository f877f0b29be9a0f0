// Command rate-limit has one task that may begin five times a second and one that may run once at a time. What waits for
// its limit holds up no other task.
//
//	go run ./examples/rate-limit
//
// Both limits are of one worker. A limit that all workers share is kept in Redis, and each of them is told of it:
//
//	worker.Config{Limits: []worker.Limit{{Task: "mail.send", Rate: "5/s"}, {Queue: "reports", Concurrency: 2}}}
package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/examples/site"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

type mailArgs struct {
	To string `task:"to"`
}

var (
	mail   = task.Define[mailArgs, time.Time]("mail.send", task.RateLimit("5/s"))
	report = task.Define[task.NoArgs, bool]("report.build", task.Concurrency(1))
	page   = task.Define[task.NoArgs, time.Time]("page.show")
)

func main() {
	mux := worker.NewMux()
	worker.Handle(mux, mail, func(context.Context, mailArgs) (time.Time, error) { return time.Now(), nil })
	worker.Handle(mux, page, func(context.Context, task.NoArgs) (time.Time, error) { return time.Now(), nil })
	var building atomic.Int32
	worker.Handle(mux, report, func(context.Context, task.NoArgs) (alone bool, err error) {
		alone = building.Add(1) == 1
		<-time.After(50 * time.Millisecond)
		building.Add(-1)
		return alone, nil
	})
	site.Run(mux, worker.Config{Concurrency: 4}, func(ctx context.Context, client *task.Client) error {
		var mails []*task.Result[time.Time]
		for _, to := range []string{"Ada", "Grace", "Edsger", "Barbara", "Alan", "Donald"} {
			r, err := mail.Send(ctx, client, mailArgs{to})
			if err != nil {
				return err
			}
			mails = append(mails, r)
		}
		var reports []*task.Result[bool]
		for range 3 {
			r, err := report.Send(ctx, client, task.NoArgs{})
			if err != nil {
				return err
			}
			reports = append(reports, r)
		}
		shown, err := page.Send(ctx, client, task.NoArgs{})
		if err != nil {
			return err
		}
		return watch(ctx, mails, reports, shown)
	})
}

// watch tells how the tasks ran.
func watch(ctx context.Context, mails []*task.Result[time.Time], reports []*task.Result[bool], shown *task.Result[time.Time]) error {
	first, err := mails[0].Get(ctx)
	if err != nil {
		return err
	}
	last, err := mails[len(mails)-1].Get(ctx)
	if err != nil {
		return err
	}
	fmt.Println("six mails took a second:", last.Sub(first) >= 950*time.Millisecond)
	one := true
	for _, r := range reports {
		alone, err := r.Get(ctx)
		if err != nil {
			return err
		}
		one = one && alone
	}
	fmt.Println("the reports were built one after the other:", one)
	at, err := shown.Get(ctx)
	fmt.Println("the page did not wait for the mails:", at.Before(last))
	return err
}
