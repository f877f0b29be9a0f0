// Package worker runs tasks: it receives messages, admits them, runs what is due in goroutines or child processes, turns what
// came back into an outcome, and applies the outcome in an order that loses nothing.
//
//	mux := worker.NewMux()
//	worker.Handle(mux, Add, func(ctx context.Context, a AddArgs) (int, error) { return a.X + a.Y, nil })
//	w, err := worker.New(client, mux, worker.Config{Concurrency: 100})
//	err = w.Run(ctx) // until ctx is done; then a warm stop
//
// # Actors
//
// One goroutine receives and admits (receiver.go, admission.go), one keeps tasks that are not due yet (parking.go),
// Concurrency slots run tasks (slots.go, pool.go, execution.go), as many as there is work with Autoscale, one stores results and one settles deliveries (outcome.go).
// Batches form by themselves where work piles up: each of the last two takes whatever has arrived while it was busy.
//
// # Delivery
//
// A message is acknowledged after its result is stored, whatever the outcome: a worker that dies causes a repeat, never
// a loss. task.AckEarly gives Celery's default, acknowledge before running. What cannot be handled at all is put in
// quarantine with the reason; no message stops a worker.
package worker
