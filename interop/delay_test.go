package interop

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

const (
	// countdown is five seconds, in binary 101: the message rests in the queue of level 2 first.
	countdown    = 5 * time.Second
	restingPlace = "celery_delayed_2"
	// tardiness is how late a task may run on a busy machine.
	tardiness = 15 * time.Second
)

// atOnce has a worker hold nothing that is not due within a second.
var atOnce = map[string]any{"gelery_delay_from": 1}

// delayings are the fleets in which a countdown rests in the broker. Celery delays by itself from 5.5 on and for topic
// exchanges; what it sends plainly, a Go worker gives back to the broker.
var delayings = []fleet{
	{name: "classic direct", since: "5.2", config: task.Config{TransportOptions: atOnce}},
	{name: "quorum direct", since: "5.5", config: task.Config{QueueType: "quorum", TransportOptions: atOnce}},
	{name: "quorum topic", since: "5.5", config: task.Config{QueueType: "quorum", ExchangeType: "topic", TransportOptions: atOnce}},
}

// TestNativeDelay sends with a countdown, sees the message rest in the delay queue, so that no worker holds it, and the
// task run when it is due.
func TestNativeDelay(t *testing.T) {
	t.Parallel()
	ForEachVersion(t, func(t *testing.T, v Version) {
		for _, f := range delayings {
			if v.AtLeast(f.since) {
				t.Run(f.name, func(t *testing.T) {
					t.Parallel()
					delays(t, Crossing{Version: v, Stack: RabbitMQRPCStack}, &f)
				})
			}
		}
	})
}

func delays(t *testing.T, c Crossing, f *fleet) {
	s := f.settings(testservice.RabbitMQ(t).URL)
	stop := runWorker(t, f.on(s))
	client := connect(t, f.on(s))
	driver := c.StartDriver(t, s)
	c.To(PythonToGo).Cell(t, "countdown, "+f.name, func(t *testing.T) {
		sent := driver.Do(t, Command{Op: "send", Task: "go.when", Options: map[string]any{"countdown": countdown.Seconds()}})
		if !sent.OK {
			t.Fatalf("%s: %s", sent.Kind, sent.Error)
		}
		rests(t, client)
		got := driver.Do(t, Command{Op: "get", ID: sent.ID, Timeout: patience.Seconds()})
		if !got.OK || got.State != "SUCCESS" {
			t.Fatalf("%s %s %s", got.State, got.Got, got.Error)
		}
		var w when
		if err := json.Unmarshal(got.Value, &w); err != nil {
			t.Fatal(err)
		}
		w.check(t)
	})
	stop()
	if f.config.QueueType != "quorum" {
		return // a Go client sends it plainly, and a Python worker holds it, as on any broker
	}
	c.StartWorker(t, s, "solo", 1)
	c.To(GoToPython).Cell(t, "countdown, "+f.name, func(t *testing.T) {
		res, err := client.Send(within(t), "py.when", nil, nil, task.Countdown(countdown))
		if err != nil {
			t.Fatal(err)
		}
		rests(t, client)
		got, err := res.Get(within(t))
		if err != nil {
			t.Fatal(err)
		}
		told, _ := got.(map[string]any)
		w := when{ETA: text(told["eta"])}
		w.At, _ = told["at"].(float64)
		w.check(t)
	})
}

// rests waits until the one message there is rests in the broker. A broker counts every message once: what rests there
// is in no other queue and in no worker's hands.
func rests(t *testing.T, client *task.Client) {
	t.Helper()
	broker := client.Transport().(transport.Inspector)
	eventually(t, "the task rests in "+restingPlace, func() bool {
		d, err := broker.Depths(within(t), []string{restingPlace, "celery"})
		if err != nil {
			t.Fatal(err)
		}
		return d[0].Messages == 1 && d[1].Messages == 0 && d[1].Unacked <= 0
	})
}

// when is what py.when and go.when return.
type when struct {
	At  float64 // Unix seconds
	ETA string
}

func (w *when) check(t *testing.T) {
	t.Helper()
	eta, err := protocol.ParseTime(w.ETA)
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMicro(int64(w.At * 1e6))
	if late := at.Sub(eta); late < -time.Millisecond || late > tardiness {
		t.Errorf("it ran %v after its eta", late)
	}
}
