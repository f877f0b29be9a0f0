//go:build !linux

package redisconn

import "syscall"

func setUserTimeout(string, string, syscall.RawConn) error { return nil }
