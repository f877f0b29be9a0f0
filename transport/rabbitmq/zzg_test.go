//go:build unix

package rabbitmq

import (
	"fmt"
	"testing"
	"time"
	"context"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

func TestZZG(t *testing.T) {
	server := testservice.StartRabbitMQ(t)
	r := newRig(t, server.URL, nil)
	r.declare(transport.Queue{Name: "q", Arguments: map[string]any{"x-queue-type": "quorum"}})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan bool)
	n := 0
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			if err := r.publish(r.within(15*time.Second), "q", fmt.Sprint(i)); err != nil {
				t.Error(err)
				return
			}
			n++
		}
	}()
	<-time.After(500 * time.Millisecond)
	server.Kill()
	server.Restart()
	t.Log("restarted")
	for range 12 {
		<-time.After(time.Second)
		t.Log(n, server.Eval(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"q">>)), {N,_}=amqqueue:get_pid(Q), {element(1, sys:get_state(N)), catch ra_leaderboard:lookup_leader(N), [{C, catch rabbit_channel:info(C, [messages_unconfirmed, messages_uncommitted, state])} || C <- rabbit_channel:list()]}`))
	}
	stop()
	<-done
}
