// Package monitor sees and steers workers, Python's and Go's alike, over the broker they share: remote control, events, and
// the state of the cluster that events tell of.
//
//	control, err := monitor.NewControl(client.Transport(), monitor.ControlConfig{})
//	for _, a := range must(control.Ping(ctx)) { … }                          // every worker that answers within a second
//	stats, err := control.To("celery@web1").Stats(ctx)                       // one
//	for reply, err := range control.Ask(ctx, "active", nil) { … }            // each as it comes
//
//	state := monitor.NewState(monitor.StateConfig{})
//	receiver, err := monitor.NewReceiver(client.Transport(), monitor.ReceiverConfig{})
//	go receiver.Capture(ctx, state.Apply)                                    // until ctx is done
//	for _, t := range state.Tasks(monitor.TaskQuery{State: "STARTED"}) { … }
//
// It takes nothing from a task queue and holds nothing of the broker's.
package monitor
