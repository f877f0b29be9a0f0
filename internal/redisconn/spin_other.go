//go:build !unix

package redisconn

import "net"

func spinning(conn net.Conn) net.Conn { return conn }
