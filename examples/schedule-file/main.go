// Command schedule-file reads periodic tasks from a file and tells when they run: around a night in which the clock in Berlin is
// put forward, so that there is no half past two.
//
//	go run ./examples/schedule-file
//
// A beat sends them with: gelery beat, and the setting beat_files: [examples/schedule-file/schedule.yaml].
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/gelery/gelery/scheduler"
)

func main() {
	store, err := scheduler.NewLocal(scheduler.LocalConfig{Files: []string{"examples/schedule-file/schedule.yaml"}})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	now := time.Date(2026, time.March, 28, 12, 0, 0, 0, time.UTC)
	for _, name := range []string{"report", "poll", "inventory", "lights", "closing"} {
		r, err := store.Entry(context.Background(), name)
		if err != nil {
			log.Fatal(err) //nolint:gocritic // the store of a program that ends
		}
		first := r.Entry.Schedule.Next(now)
		fmt.Printf("%-10s %s %s\n", name, first.UTC().Format("2 Jan 15:04"), r.Entry.Task)
	}
}
