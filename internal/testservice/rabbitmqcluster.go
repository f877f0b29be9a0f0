//go:build unix

package testservice

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/rabbitmqserver"
)

// RabbitMQCluster is a RabbitMQ cluster of a test's own.
type RabbitMQCluster struct {
	URL   string // the nodes' URLs as a failover list: "amqp://…;amqp://…"
	Nodes []*RabbitMQServer

	t testing.TB
}

// StartRabbitMQCluster starts so many nodes and returns when they are one cluster, after 20 s for three of them. Lines
// are appended to each node's rabbitmq.conf. They are killed when the test ends, and when the test process dies.
func StartRabbitMQCluster(t testing.TB, nodes int, lines ...string) *RabbitMQCluster {
	t.Helper()
	c := &RabbitMQCluster{Nodes: startNodes(t, rabbitmqserver.Config{Nodes: nodes, Lines: lines}), t: t}
	var urls []string
	for _, n := range c.Nodes {
		urls = append(urls, n.URL)
	}
	c.URL = strings.Join(urls, ";")
	return c
}

// Leader returns the node where a quorum queue's leader is, or where a classic queue lives, as the first living node
// knows it.
func (c *RabbitMQCluster) Leader(queue string) *RabbitMQServer {
	c.t.Helper()
	for _, n := range c.Nodes {
		if n.Pid() == 0 {
			continue
		}
		name := n.Eval(fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(%s, queue, %s)),
			{text, atom_to_list(amqqueue:qnode(Q))}`, binary(n.Vhost), binary(queue)))
		for _, leader := range c.Nodes {
			if leader.NodeName == name {
				return leader
			}
		}
		c.t.Fatalf("queue %s has its leader on %s, which is none of ours", queue, name)
	}
	c.t.Fatal("no node of the cluster lives")
	return nil
}

// Running tells how many nodes the first living node sees running, itself included.
func (c *RabbitMQCluster) Running() int {
	c.t.Helper()
	for _, n := range c.Nodes {
		if n.Pid() != 0 {
			return n.count("1 + length([N || N <- nodes(), rpc:call(N, rabbit, is_running, []) =:= true])")
		}
	}
	return 0
}
