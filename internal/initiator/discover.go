package initiator

import (
	"bytes"
	"context"
	"strconv"
	"strings"

	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// Portal is an address of a target.
type Portal struct {
	// Address is host:port, IPv6 in brackets.
	Address string
	// Group is the target portal group tag (RFC 7143 §4.1.1), 1 where the target told none.
	Group uint16
}

// TargetInfo is a target found by discovery.
type TargetInfo struct {
	// Name is its iSCSI name.
	Name string
	// Portals are its addresses; one without any is at the portal that was asked.
	Portals []Portal
}

// maxDiscoveryPDUs bounds the PDUs of one answer.
const maxDiscoveryPDUs = 1 << 14

// Discover asks cfg.Portal for the targets that cfg.InitiatorName may see (SendTargets=All,
// RFC 7143 appendix C). It opens a discovery session of its own and logs out. The whole takes at most
// Limits.LoginTimeout for the login and as long again for the answer.
func Discover(ctx context.Context, cfg Config) ([]TargetInfo, error) {
	cfg.Target = "discovery"
	cfg, err := cfg.prepare(true)
	if err != nil {
		return nil, err
	}
	c, err := connect(ctx, cfg, true)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.Limits.LoginTimeout, ErrTimedOut)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	d := &discovery{c: c, digests: c.rd.Digests}
	list, err := d.sendTargets(cfg.Limits.DiscoveryTextBytes)
	if err == nil {
		d.logout()
		var targets []TargetInfo
		if targets, err = parseTargets(list); err == nil {
			return targets, nil
		}
	}
	return nil, san.Errorf(san.KindUnavailable, "ask portal %s for its targets: %w", cfg.Portal, causeOf(ctx, err))
}

// discovery is a discovery session: one request at a time, so it needs no goroutine.
type discovery struct {
	c       *connection
	digests pdu.Digests
	ttt     uint32
}

const discoveryTag = 1

// sendTargets conducts the text exchange and returns all pairs of the answer.
func (d *discovery) sendTargets(maxBytes int) ([]pdu.KeyValue, error) {
	text := pdu.AppendText(nil, pdu.KeyValue{Key: pdu.KeySendTargets, Value: "All"})
	d.ttt = pdu.NoTag
	var answer []byte
	for range maxDiscoveryPDUs {
		req := pdu.TextRequest{Final: true, ITT: discoveryTag, TTT: d.ttt, CmdSN: d.c.cmdSN, ExpStatSN: d.c.expStatSN}
		d.c.cmdSN++
		if err := d.digests.WritePDU(d.c.conn, &req, text); err != nil {
			return nil, lostError(err)
		}
		p, err := d.receive(pdu.OpTextResp)
		if err != nil {
			return nil, err
		}
		var resp pdu.TextResponse
		resp.Decode(&p.BHS)
		more := resp.Continue || !resp.Final
		if resp.ITT != discoveryTag || more && resp.TTT == pdu.NoTag {
			return nil, protocolErrorf("a text response whose tags don't fit")
		}
		// A target may cut its answer at any byte, with the C bit or without it; it is
		// joined before it is read.
		if len(answer)+len(p.Data) > maxBytes {
			return nil, protocolErrorf("a SendTargets answer of more than %d bytes; the limit is Limits.DiscoveryTextBytes", maxBytes)
		}
		answer = append(answer, p.Data...)
		if !more {
			return splitPairs(answer)
		}
		d.ttt, text = resp.TTT, nil
	}
	return nil, protocolErrorf("no end of the SendTargets answer after %d PDUs", maxDiscoveryPDUs)
}

// splitPairs reads a SendTargets answer. Unlike a login's text it may have any number of pairs: its size bounds them.
func splitPairs(text []byte) ([]pdu.KeyValue, error) {
	var list []pdu.KeyValue
	for pair := range bytes.SplitSeq(text, []byte{0}) {
		if len(pair) == 0 {
			continue
		}
		key, value, ok := strings.Cut(string(pair), "=")
		if !ok {
			return nil, protocolErrorf("a SendTargets answer with %.64q, which is no pair", pair)
		}
		list = append(list, pdu.KeyValue{Key: key, Value: value})
	}
	return list, nil
}

// receive returns the next PDU, which must be a want, after answering pings.
func (d *discovery) receive(want pdu.Opcode) (*pdu.PDU, error) {
	for range maxReplies {
		p, err := d.c.rd.ReadPDU()
		if err != nil {
			return nil, readError(err)
		}
		switch op := p.BHS.Opcode(); op {
		case want:
			d.c.expStatSN = p.BHS.CmdSN() + 1 // StatSN is at the same place in responses
			return p, nil
		case pdu.OpNOPIn:
			if err := d.answerPing(&p.BHS); err != nil {
				return nil, err
			}
		case pdu.OpAsync:
			return nil, ErrTargetAsked
		default:
			return nil, protocolErrorf("%v in a discovery session that waits for a %v", op, want)
		}
	}
	return nil, protocolErrorf("more than %d pings before an answer", maxReplies)
}

func (d *discovery) answerPing(b *pdu.BHS) error {
	var in pdu.NOPIn
	in.Decode(b)
	if in.TTT == pdu.NoTag {
		return nil
	}
	out := pdu.NOPOut{Immediate: true, LUN: in.LUN, ITT: pdu.NoTag, TTT: in.TTT, CmdSN: d.c.cmdSN, ExpStatSN: d.c.expStatSN}
	if err := d.digests.WritePDU(d.c.conn, &out, nil); err != nil {
		return lostError(err)
	}
	return nil
}

// logout ends the session. The answer is a courtesy: the connection closes in any case.
func (d *discovery) logout() {
	req := pdu.LogoutRequest{Immediate: true, Reason: pdu.LogoutCloseSession, ITT: discoveryTag + 1, CmdSN: d.c.cmdSN, ExpStatSN: d.c.expStatSN}
	if err := d.digests.WritePDU(d.c.conn, &req, nil); err == nil {
		_, _ = d.receive(pdu.OpLogoutResp)
	}
}

// parseTargets reads TargetName keys, each followed by its TargetAddress keys. What can't be
// an address is an error: a caller should know that something is missing.
func parseTargets(list []pdu.KeyValue) ([]TargetInfo, error) {
	var targets []TargetInfo
	for _, kv := range list {
		switch kv.Key {
		case pdu.KeyTargetName:
			if err := checkTargetName(kv.Value); err != nil {
				return nil, err
			}
			targets = append(targets, TargetInfo{Name: kv.Value})
		case pdu.KeyTargetAddress:
			if len(targets) == 0 {
				return nil, protocolErrorf("SendTargets gave an address before any target")
			}
			p, err := parsePortal(kv.Value)
			if err != nil {
				return nil, err
			}
			t := &targets[len(targets)-1]
			t.Portals = append(t.Portals, p)
		}
	}
	return targets, nil
}

// parsePortal reads address[:port][,group] (RFC 7143 §13.8).
func parsePortal(s string) (Portal, error) {
	address, err := normalizePortal(s)
	if err != nil {
		return Portal{}, err
	}
	p := Portal{Address: address, Group: 1}
	if _, tag, ok := strings.Cut(s, ","); ok {
		group, err := strconv.ParseUint(tag, 10, 16)
		if err != nil {
			return Portal{}, protocolErrorf("portal %.80q has no valid group tag", s)
		}
		p.Group = uint16(group)
	}
	return p, nil
}
