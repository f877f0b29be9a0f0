package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
)

// step is one command in a row of them.
type step struct {
	args   string
	code   int
	stdout string
	stderr string // a part
}

func steps(t *testing.T, broker string, options []string, steps []step) {
	t.Helper()
	for _, s := range steps {
		code, stdout, stderr := run{args: append(append([]string{"-b", broker}, strings.Fields(s.args)...), options...)}.do(t)
		if code != s.code || stdout != s.stdout || !strings.Contains(stderr, s.stderr) || s.stderr == "" && stderr != "" {
			t.Errorf("%s: exit code %d, want %d\nstdout %q\n  want %q\nstderr %q\n  want %q", s.args, code, s.code, stdout, s.stdout, stderr, s.stderr)
		}
	}
}

func TestAMQP(t *testing.T) {
	t.Parallel()
	common := []step{
		{"amqp exchange.declare ev --type topic", 0, "Declared exchange ev.\n", ""},
		{"amqp queue.declare mail", 0, "Declared queue mail.\n", ""},
		{"amqp queue.bind mail ev a.# --type topic", 0, `Bound queue mail, exchange ev, routing key "a.#".` + "\n", ""},
		{"amqp exchange.delete ev --if-unused", exitFailed, "", `exchange "ev" is in use`},
		{"amqp queue.unbind mail ev a.# -o json", 0, `{"exchange":"ev","queue":"mail","routing_key":"a.#"}` + "\n", ""},
		{"amqp queue.bind mail ev --type topic -o json", 0, `{"exchange":"ev","queue":"mail","routing_key":""}` + "\n", ""},
		{"amqp exchange.delete ev -o json", 0, `{"exchange":"ev"}` + "\n", ""},
		{"amqp queue.purge mail", 0, "Purged 0 messages from queue mail.\n", ""},
		{"amqp queue.delete mail --if-empty -o json", 0, `{"queue":"mail","deleted":0}` + "\n", ""},
		{"amqp queue.delete mail", 0, "Deleted queue mail with 0 messages.\n", ""},
		{"amqp queue.purge mail -o json", 0, `{"queue":"mail","purged":0}` + "\n", ""},
	}
	forEachBroker(t, func(t *testing.T, broker, _ string) {
		steps(t, broker, nil, common)
		command(t, 0, "-b", broker, "call", "x", "-q", "mail")
		steps(t, broker, nil, []step{
			{"amqp queue.delete mail --if-empty", exitFailed, "", "not empty"},
			{"amqp queue.delete mail --if-unused", exitFailed, "", "nobody can tell"},
			{"amqp queue.delete mail", 0, "Deleted queue mail with 1 message.\n", ""},
			{"amqp exchange.declare x --type headers", exitFailed, "", "not supported on Redis"},
		})
	})
	t.Run("rabbitmq", func(t *testing.T) {
		t.Parallel()
		broker := testservice.RabbitMQ(t).URL
		steps(t, broker, nil, common)
		command(t, 0, "-b", broker, "call", "x", "-q", "mail")
		steps(t, broker, nil, []step{
			{"amqp queue.delete mail --if-empty", exitFailed, "", "not empty"},
			{"amqp queue.declare mail", 0, "Declared queue mail.\n", ""},
			{"amqp queue.declare mail --transient", exitFailed, "", "gelery: queue mail exists with another durable\n" +
				"  why: it has durable true, and was declared with false\n" +
				"  try: declare it with durable true, as everybody who shares it must, or delete it: gelery amqp queue.delete mail\n"},
			{"amqp queue.declare mail --arg x-max-priority=10", exitFailed, "", "gelery: queue mail exists with another x-max-priority\n" +
				"  why: it has x-max-priority none, and was declared with 10\n" +
				"  try: declare it without x-max-priority, as everybody who shares it must, or delete it: gelery amqp queue.delete mail\n"},
			{"amqp queue.declare prio --arg x-max-priority=10", 0, "Declared queue prio.\n", ""},
			{"call x -q prio", exitFailed, "", "  why: it has x-max-priority 10, and was declared with none\n"},
			{"amqp exchange.declare mail --type topic", exitFailed, "", "gelery: exchange mail exists with another type\n"},
			{"amqp queue.bind none mail", exitFailed, "", "no queue 'none'"},
			{"amqp queue.delete mail --if-unused", 0, "Deleted queue mail with 1 message.\n", ""},
			{"amqp exchange.delete amq.direct", exitFailed, "", "gelery: the broker does not permit it\n"},
			{"call x --exchange nope --routing-key k", exitFailed, "", "gelery: the message has nowhere to go\n"},
		})
	})
}

// TestQueuesOnRabbitMQ: queues, purge and quarantine with and without the management plugin.
func TestQueuesOnRabbitMQ(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	managed := []string{"--transport-option", "management_url=" + s.ManagementURL}
	alone := []string{"--transport-option", "management_url=http://127.0.0.1:1"}
	for _, args := range []string{"call x", "call x", "call x -q mail"} {
		command(t, 0, append([]string{"-b", s.URL}, strings.Fields(args)...)...)
	}
	command(t, 0, "-b", s.URL, "amqp", "queue.declare", "_gelery.quarantine.mail")
	s.Put("_gelery.quarantine.mail", []byte("not a task"))
	steps(t, s.URL, alone, []step{
		{"queues -Q celery,mail", 0, "celery\t2\t-\t-\t0\t\nmail\t1\t-\t-\t1\t\n", ""},
		{"queues -Q none", exitFailed, "none\t-\t-\t-\t0\t\n", "gelery: cannot read all of queue none\n  why: queue \"none\": not found\n"},
		{"queues", exitFailed, "", "gelery: cannot list the queues\n  why: the management plugin does not answer at http://127.0.0.1:1 ("},
		{"queues --quarantine mail", 0, "\tmail\t\t" + `{} not a task` + "\n", ""},
		{"queues --quarantine mail -o json", 0, `[{"time":"","queue":"mail","reason":"","text":"not a task","properties":{}}]` + "\n", ""},
		{"queues --purge-quarantine mail", 0, "Purged 1 message from the quarantine of mail.\n", ""},
		{"queues --quarantine none -o json", 0, "[]\n", ""},
		{"purge -f -Q celery,none", 0, "Purged 2 messages from 2 known task queues.\n", ""},
	})
	got := command(t, 0, append([]string{"-b", s.URL, "queues", "-o", "json"}, managed...)...)
	var depths []struct{ Queue string }
	if err := json.Unmarshal([]byte(got), &depths); err != nil || len(depths) != 2 || depths[0].Queue != "celery" || depths[1].Queue != "mail" {
		t.Errorf("%s: %v; want celery and mail", got, err)
	}
}
