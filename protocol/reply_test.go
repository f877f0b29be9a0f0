package protocol_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
)

func TestReply(t *testing.T) {
	t.Parallel()
	meta := func() *protocol.ResultMeta {
		return &protocol.ResultMeta{TaskID: "i", Status: protocol.Failure, Traceback: "Traceback",
			Exception: &protocol.Exception{Type: "E", Module: "m", Args: []any{"a", int64(1)}},
			Children:  []protocol.ResultTuple{{ID: "c"}}}
	}
	accept, err := serialization.NewAccept("json", "msgpack", "yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []serialization.Serializer{serialization.JSON, serialization.MsgPack, serialization.YAML} {
		sent := meta()
		sent.GroupID, sent.ParentID, sent.DateDone = "g", "p", goldenTime // which a reply does not tell
		sent.Extended = &protocol.ExtendedMeta{Name: "n"}
		m, err := protocol.NewReply(sent, s, false)
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Decode(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(v.(map[string]any)); n != 5 {
			t.Errorf("%s: a reply has %d members", s.Name(), n)
		}
		got, err := protocol.DecodeReply(m, accept)
		if d := cmp.Diff(meta(), got); d != "" || err != nil {
			t.Errorf("%s: %v %s", s.Name(), err, d)
		}
		if m.Body, m.Headers.Compression, err = compression.Compress("zlib", m.Body); err != nil {
			t.Fatal(err)
		}
		got, err = protocol.DecodeReply(m, accept)
		if d := cmp.Diff(meta(), got); d != "" || err != nil {
			t.Errorf("%s, compressed: %v %s", s.Name(), err, d)
		}
		if _, err := protocol.DecodeReply(m, serialization.Accept{}); s != serialization.JSON && err == nil {
			t.Errorf("%s is read though it is not accepted", s.Name())
		}
	}
}

func TestReplyProperties(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 256)
	for _, tt := range []struct {
		id, correlation string
		persistent      bool
		want            protocol.Properties
	}{
		{"i", "", false, protocol.Properties{CorrelationID: "i", DeliveryMode: 1}},
		{"i", "c", true, protocol.Properties{CorrelationID: "c", DeliveryMode: 2}},
		{long[1:], "", false, protocol.Properties{CorrelationID: long[1:], DeliveryMode: 1}},
		{long, "", false, protocol.Properties{DeliveryMode: 1}},
		{"i", long, false, protocol.Properties{DeliveryMode: 1}},
	} {
		m, err := protocol.NewReply(&protocol.ResultMeta{TaskID: tt.id, Status: protocol.Success, CorrelationID: tt.correlation},
			serialization.JSON, tt.persistent)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, m.Properties); d != "" {
			t.Error(d)
		}
	}
}

func TestReplyRefuses(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*protocol.ResultMeta{
		"no id":               {Status: protocol.Success},
		"no status":           {TaskID: "i"},
		"failure without why": {TaskID: "i", Status: protocol.Failure},
		"not writable":        {TaskID: "i", Status: protocol.Success, Result: make(chan int)},
	} {
		for _, s := range []serialization.Serializer{serialization.JSON, serialization.MsgPack, serialization.YAML} {
			if reply, err := protocol.NewReply(m, s, false); err == nil {
				t.Errorf("%s, %s: wrote %s", name, s.Name(), reply.Body)
			}
		}
	}
}
