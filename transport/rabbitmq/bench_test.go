package rabbitmq

import (
	"context"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/protocol"
)

// benchMessage is an ordinary task.
func benchMessage(t testing.TB) *protocol.Message {
	return decodeEnvelope(t, envelopes(t)["5.6.3/plain"])
}

// libraryTable is how the headers of benchMessage look in the library's own form.
func libraryTable() amqp.Table {
	return amqp.Table{"lang": "py", "task": "tasks.add", "id": "task-1", "shadow": nil, "eta": nil, "expires": nil,
		"group": nil, "group_index": nil, "retries": int32(0), "timelimit": []any{nil, nil}, "root_id": "task-1",
		"parent_id": nil, "argsrepr": "(2, 3)", "kwargsrepr": "{'debug': True}", "origin": "gen1@host",
		"ignore_result": false, "replaced_task_nesting": int32(0), "stamped_headers": nil, "stamps": amqp.Table{}}
}

// The price of a message's way through amqp091-go, with our tables over a socket and with the library's own, which are
// not even made into a message.
func BenchmarkPublish(b *testing.B) {
	for _, ours := range []bool{true, false} {
		name := map[bool]string{true: "socket", false: "library"}[ours]
		b.Run(name, func(b *testing.B) {
			m := benchMessage(b)
			c := newScript(login("")[:5]...)
			ch := connected(b, c, ours)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				p := amqp.Publishing{ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, DeliveryMode: 2,
					CorrelationId: m.Properties.CorrelationID, ReplyTo: m.Properties.ReplyTo, Body: m.Body}
				if ours {
					var err error
					if p, err = publishing(m); err != nil {
						b.Fatal(err)
					}
				} else {
					p.Headers = libraryTable()
				}
				if err := ch.PublishWithContext(ctx, "", "celery", true, false, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDeliver(b *testing.B) {
	m := benchMessage(b)
	p, err := publishing(m)
	if err != nil {
		b.Fatal(err)
	}
	const batch = 32
	frames := strings.Repeat(deliverFrames(string(p.Headers[rawKey].([]byte)), string(m.Body)), batch)
	for _, ours := range []bool{true, false} {
		name := map[bool]string{true: "socket", false: "library"}[ours]
		b.Run(name, func(b *testing.B) {
			c := newScript(login("\x00\x3c\x00\x15" + shortString("ctag"))...)
			deliveries := consume(b, c, ours)
			b.ReportAllocs()
			left := 0
			for b.Loop() {
				if left == 0 {
					c.said <- frames
					left = batch
				}
				d := <-deliveries
				left--
				if ours {
					if got := delivery(&d, "celery"); got.Err != nil || got.Message.Headers.Task == "" {
						b.Fatal(got.Err)
					}
				} else if d.Headers["task"] == nil {
					b.Fatal("no task")
				}
			}
		})
	}
}
