package iscsi

import (
	"github.com/sandbar-san/sandbar/internal/pdu"
)

// textExchange is the text negotiation that is going on, if any (RFC 7143 §11.10). There is one at a time.
type textExchange struct {
	joiner pdu.TextJoiner
	// rest is what of the answer has not been sent yet; tag is the TTT with which the
	// initiator asks for it.
	rest []byte
	tag  uint32
	room room // that rest holds
}

const textTag = 1

// maxTextRequest bounds a text request of several PDUs; none that means something comes near.
const maxTextRequest = 64 << 10

// textRequest takes a text request in full feature phase.
func (s *session) textRequest(b *pdu.BHS, data []byte) error {
	var h pdu.TextRequest
	h.Decode(b)
	if h.ITT == pdu.NoTag || h.Final && h.Continue {
		s.reject(b, pdu.RejectProtocolError)
		return nil
	}
	t := &s.text
	if h.TTT == pdu.NoTag {
		// A new exchange ends the one before.
		s.textEnds()
	} else if t.tag != h.TTT {
		s.reject(b, pdu.RejectProtocolError)
		return nil
	} else if t.rest != nil {
		s.textResponse(&h)
		return nil
	}
	keys, err := t.joiner.Add(data, h.Continue)
	if err != nil {
		s.textEnds()
		s.reject(b, pdu.RejectProtocolError)
		return nil
	}
	if h.Continue {
		t.tag = textTag
		s.textAnswer(&h, nil, false, t.tag)
		return nil
	}
	t.rest = pdu.AppendText([]byte{}, s.textKeys(keys)...)
	if !s.textRoom() {
		s.textEnds()
		s.reject(b, pdu.RejectLongOperation)
		return nil
	}
	s.textResponse(&h)
	return nil
}

// textRoom takes room for the answer until the initiator has fetched it.
func (s *session) textRoom() (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.room, ok = s.take(len(s.text.rest), true)
	return ok
}

// textEnds forgets the exchange; the next request begins another.
func (s *session) textEnds() {
	if s.text.room != (room{}) {
		s.freed(s.text.room)
	}
	s.text = noExchange()
}

func noExchange() textExchange {
	return textExchange{joiner: pdu.TextJoiner{Max: maxTextRequest}, tag: pdu.NoTag}
}

// textResponse sends the next part of the answer.
func (s *session) textResponse(h *pdu.TextRequest) {
	t := &s.text
	parts := pdu.SplitText(t.rest, int(s.params.MaxSendDataSegmentLength))
	if len(parts) > 1 {
		t.rest, t.tag = t.rest[len(parts[0]):], textTag
		s.textAnswer(h, parts[0], false, t.tag)
		return
	}
	s.textEnds()
	// Without F the initiator has more to say; then it gets a tag to go on with.
	tag := pdu.NoTag
	if !h.Final {
		tag, t.tag = textTag, textTag
	}
	s.textAnswer(h, parts[0], h.Final, tag)
}

// textAnswer sends one text response; C is set when it is not final for the reason that more of its text follows.
func (s *session) textAnswer(h *pdu.TextRequest, data []byte, final bool, tag uint32) {
	s.answer(func(b *pdu.BHS) []byte {
		(&pdu.TextResponse{Final: final, Continue: s.text.rest != nil, LUN: h.LUN, ITT: h.ITT, TTT: tag, StatSN: s.out.nextStatSN(),
			ExpCmdSN: s.expCmdSN.Load(), MaxCmdSN: s.maxCmdSN.Load()}).Encode(b)
		return data
	})
}

// textKeys answers keys in full feature phase: SendTargets, and the receive limit, which
// alone may change there (RFC 7143 §13). Targets are listed once in an answer, since the list is
// what is long and a key may not be repeated anyway (RFC 7143 §6.2).
func (s *session) textKeys(keys []pdu.KeyValue) []pdu.KeyValue {
	var answers []pdu.KeyValue
	neg := pdu.NewNegotiator(pdu.Target, pdu.DefaultWishes())
	listed := false
	for _, kv := range keys {
		switch kv.Key {
		case pdu.KeySendTargets:
			if listed {
				answers = append(answers, pdu.KeyValue{Key: kv.Key, Value: pdu.AnswerReject})
				continue
			}
			listed = true
			answers = append(answers, s.sendTargets(kv.Value)...)
		case pdu.KeyMaxRecvDataSegmentLength:
			if _, err := neg.Receive([]pdu.KeyValue{kv}); err != nil {
				answers = append(answers, pdu.KeyValue{Key: kv.Key, Value: pdu.AnswerReject})
				continue
			}
			s.out.mu.Lock() // those who segment data hold it
			s.params.MaxSendDataSegmentLength = neg.Params().MaxSendDataSegmentLength
			s.out.mu.Unlock()
		default:
			// Known keys are of the login only, unknown ones are not understood.
			answer := pdu.AnswerReject
			if got, err := neg.Receive([]pdu.KeyValue{kv}); err == nil && len(got) == 1 && got[0].Value == pdu.AnswerNotUnderstood {
				answer = got[0].Value
			}
			answers = append(answers, pdu.KeyValue{Key: kv.Key, Value: answer})
		}
	}
	return answers
}

// sendTargets answers SendTargets (RFC 7143 appendix C): All in a discovery session; one
// name, or the empty string for the session's own target, in any.
func (s *session) sendTargets(what string) []pdu.KeyValue {
	if what == "All" && !s.info.Discovery {
		return []pdu.KeyValue{{Key: pdu.KeySendTargets, Value: pdu.AnswerReject}}
	}
	if what == "" {
		what = s.info.Target
	}
	var answers []pdu.KeyValue
	size := 0
	for _, t := range s.srv.directory.Discover(s.info.Initiator, s.info.RemoteAddr.Addr().Unmap()) {
		if what != "All" && what != t.Name {
			continue
		}
		record := []pdu.KeyValue{{Key: pdu.KeyTargetName, Value: t.Name}}
		for _, p := range t.Portals {
			record = append(record, pdu.KeyValue{Key: pdu.KeyTargetAddress, Value: p})
		}
		for _, kv := range record {
			size += len(kv.Key) + len(kv.Value) + 2
		}
		if size > s.limits.MaxTextBytes {
			s.logger.Warn("the list of targets is too long to be sent whole", "limitBytes", s.limits.MaxTextBytes)
			break
		}
		answers = append(answers, record...)
	}
	return answers
}
