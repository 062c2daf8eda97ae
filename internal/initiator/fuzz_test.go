package initiator

import (
	"bufio"
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// replay is a connection whose peer sends fixed bytes, then closes, and takes everything.
type replay struct {
	net.Conn // nil: nothing else of it is used
	in       *bytes.Reader
	written  int
}

func (r *replay) Read(p []byte) (int, error)  { return r.in.Read(p) }
func (r *replay) Write(p []byte) (int, error) { r.written += len(p); return len(p), nil }
func (r *replay) Close() error                { return nil }

func newReplay(b []byte) *replay { return &replay{in: bytes.NewReader(b)} }

func wire(list ...any) []byte {
	var b []byte
	for i := 0; i < len(list); i += 2 {
		data, _ := list[i+1].([]byte)
		b, _ = pdu.Digests{}.Append(b, list[i].(pdu.Header), nil, data)
	}
	return b
}

// FuzzReader feeds a session in full feature phase. Whatever comes, every request ends,
// nothing is written past a caller's buffer, and no more is sent than a write has.
func FuzzReader(f *testing.F) {
	const n = 2048
	tag := func(index uint32) uint32 { return 1<<slotBits | index }
	good := pdu.SCSIResponse{ITT: tag(0), StatSN: 1, ExpCmdSN: 5, MaxCmdSN: 64}
	f.Add(wire(&pdu.DataIn{ITT: tag(0), TTT: pdu.NoTag}, make([]byte, 1024), &pdu.DataIn{Final: true, HasStatus: true, ITT: tag(0), DataSN: 1, BufferOffset: 1024}, make([]byte, 1024)))
	f.Add(wire(&pdu.R2T{ITT: tag(2), TTT: 1, DesiredLength: 1024, BufferOffset: 512}, nil, &pdu.R2T{ITT: tag(2), TTT: 2, R2TSN: 1, DesiredLength: 512, BufferOffset: 1536}, nil, &good, nil))
	f.Add(wire(&good, pdu.AppendSense(nil, cdb.Sense{Key: 3}.Fixed()), &pdu.NOPIn{ITT: pdu.NoTag, TTT: 4}, nil, &pdu.Async{Event: pdu.AsyncLogoutRequest}, nil))
	f.Add(wire(&pdu.TaskResponse{ITT: controlTag | 1}, nil))
	f.Add(wire(&pdu.Reject{Reason: 4}, make([]byte, 48)))
	f.Fuzz(func(t *testing.T, in []byte) {
		conn := newReplay(in)
		count := &countingReader{src: conn}
		cfg, err := Config{Portal: "h", Target: "iqn.2004-10.com.example:t", InitiatorName: testInitiator, Limits: Limits{LogoutTimeout: time.Millisecond, QueueDepth: 4}}.prepare(false)
		if err != nil {
			t.Fatal(err)
		}
		s := newSession(&connection{
			conn: conn, count: count, rd: pdu.NewReader(bufio.NewReaderSize(count, 4096), 4096, pdu.MaxAHSLength), cmdSN: 1, maxCmdSN: 64,
			params: pdu.Params{ImmediateData: true, FirstBurstLength: 512, MaxBurstLength: 1024, MaxSendDataSegmentLength: 512, MaxRecvDataSegmentLength: 4096},
		}, cfg)
		var calls []*call
		var guards [][]byte
		for i := range 4 {
			cmd := writeCommand(n)
			if i < 2 {
				buf := bytes.Repeat([]byte{0xa5}, 2*n)
				cmd = &Command{CDB: cdb.Read16(0, n/512, false), In: buf[:n]}
				guards = append(guards, buf[n:])
			}
			c, err := s.start(t.Context(), cmd)
			if err != nil {
				t.Fatal(err)
			}
			calls = append(calls, c)
		}
		go s.run()
		for _, c := range calls {
			if r, err := s.wait(t.Context(), c); err == nil && r.InBytes > n {
				t.Errorf("%d bytes in a buffer of %d", r.InBytes, n)
			}
		}
		s.Close()
		for _, guard := range guards {
			if len(bytes.Trim(guard, "\xa5")) != 0 {
				t.Error("written past the buffer")
			}
		}
		// Two writes with their headers, and small answers to what came.
		if most := 2*n + 48*(4+2*n/512+len(in)/48+8); conn.written > most {
			t.Errorf("%d bytes written, at most %d are right", conn.written, most)
		}
	})
}

// FuzzLogin feeds a login with mutual CHAP, which no fixed bytes can pass, and one without.
func FuzzLogin(f *testing.F) {
	ok := func(csg, nsg uint8, keys ...pdu.KeyValue) []byte {
		return wire(&pdu.LoginResponse{Transit: true, CSG: csg, NSG: nsg}, pdu.AppendText(nil, keys...))
	}
	f.Add(append(ok(0, 1, kv("AuthMethod", "None"), kv("TargetPortalGroupTag", "1")), ok(1, 3, kv("MaxBurstLength", "4096"), kv("HeaderDigest", "None"))...), false)
	f.Add(append(wire(&pdu.LoginResponse{}, pdu.AppendText(nil, kv("AuthMethod", "CHAP")), &pdu.LoginResponse{}, pdu.AppendText(nil, kv("CHAP_A", "5"), kv("CHAP_I", "1"), kv("CHAP_C", "0x00"))),
		ok(0, 1, kv("CHAP_N", "disk"), kv("CHAP_R", "0x00"))...), true)
	f.Add(wire(&pdu.LoginResponse{Continue: true}, []byte("Auth"), &pdu.LoginResponse{Status: pdu.LoginTargetMoved}, pdu.AppendText(nil, kv("TargetAddress", "h:1"))), false)
	f.Fuzz(func(t *testing.T, in []byte, mutual bool) {
		cfg := Config{Portal: "h", Target: "iqn.2004-10.com.example:t", InitiatorName: testInitiator}
		if mutual {
			cfg.CHAP, cfg.MutualCHAP = CHAP{"host", "one"}, CHAP{"disk", "two"}
		}
		cfg, err := cfg.prepare(false)
		if err != nil {
			t.Fatal(err)
		}
		cfg.ISID = pdu.ISID{}
		c, err := login(newReplay(in), cfg, false)
		switch {
		case err != nil:
		case mutual:
			t.Error("a target without the secret passed mutual CHAP")
		case c.params.MaxSendDataSegmentLength < 512 || c.params.FirstBurstLength > c.params.MaxBurstLength || c.params.MaxBurstLength > 1<<20 || !c.params.InitialR2T:
			t.Errorf("unlawful parameters %+v", c.params)
		}
	})
}

// FuzzDiscovery feeds the answer to SendTargets.
func FuzzDiscovery(f *testing.F) {
	text := pdu.AppendText(nil, kv("TargetName", "iqn.a"), kv("TargetAddress", "[::1]:3260,1"), kv("TargetName", "iqn.b"))
	f.Add(wire(&pdu.TextResponse{Final: true, ITT: discoveryTag, TTT: pdu.NoTag}, text))
	f.Add(wire(&pdu.TextResponse{Continue: true, ITT: discoveryTag, TTT: 1}, text[:20], &pdu.NOPIn{TTT: 3}, nil, &pdu.TextResponse{Final: true, ITT: discoveryTag, TTT: pdu.NoTag}, text[20:]))
	f.Fuzz(func(t *testing.T, in []byte) {
		conn := newReplay(in)
		d := &discovery{c: &connection{conn: conn, rd: pdu.NewReader(conn, 8192, 0)}}
		list, err := d.sendTargets(4096)
		if err != nil {
			return
		}
		targets, err := parseTargets(list)
		if err == nil && len(targets) > 4096/len("TargetName=x\x00") {
			t.Errorf("%d targets from 4096 bytes", len(targets))
		}
		d.logout()
	})
}

// FuzzInquiry feeds what a logical unit says of itself.
func FuzzInquiry(f *testing.F) {
	f.Add([]byte{0, 0x83, 0, 8, 1, 3, 0, 4, 1, 2, 3, 4})
	f.Add(make([]byte, 96))
	f.Fuzz(func(t *testing.T, in []byte) {
		parseInquiry(in)
		for _, page := range []byte{vpdSupported, vpdIdentification, vpdBlockLimits} {
			body, err := vpdPage(in, page)
			if err != nil {
				continue
			}
			if list := parseDesignators(body); len(list) > maxDesignators {
				t.Errorf("%d designators", len(list))
			} else {
				wwid(list)
			}
			parseBlockLimits(body)
		}
	})
}
