package initiator

import (
	"crypto/rand"
	"slices"
	"strconv"

	"github.com/sandbar-san/sandbar/internal/pdu"
	"github.com/sandbar-san/sandbar/san"
)

// chapExchange is the initiator's side of one CHAP authentication (RFC 7143 §12.1.3).
type chapExchange struct {
	algorithms []pdu.CHAPAlgorithm
	own, peer  CHAP
	mutual     bool

	algorithm pdu.CHAPAlgorithm
	id        byte   // ours, sent to the target
	challenge []byte // ours, sent to the target
}

// offer is the algorithms that we take, the one that we prefer first.
func (x *chapExchange) offer() pdu.KeyValue {
	return pdu.KeyValue{Key: pdu.KeyCHAPAlgorithm, Value: pdu.FormatCHAPAlgorithms(x.algorithms...)}
}

// answer takes the target's algorithm, identifier and challenge and returns our proof and,
// for mutual authentication, our challenge.
func (x *chapExchange) answer(got []pdu.KeyValue) ([]pdu.KeyValue, error) {
	choice, _ := pdu.Find(got, pdu.KeyCHAPAlgorithm)
	number, err := strconv.ParseUint(choice, 0, 8)
	x.algorithm = pdu.CHAPAlgorithm(number)
	if err != nil || !slices.Contains(x.algorithms, x.algorithm) {
		return nil, protocolErrorf("the target chose CHAP algorithm %.16q, which was not offered", choice)
	}
	text, _ := pdu.Find(got, pdu.KeyCHAPIdentifier)
	id, err := strconv.ParseUint(text, 0, 8)
	if err != nil {
		return nil, protocolErrorf("CHAP_I %.16q is no number from 0 to 255", text)
	}
	text, _ = pdu.Find(got, pdu.KeyCHAPChallenge)
	challenge, err := pdu.ParseBinary(text, pdu.MaxCHAPBytes)
	if err != nil || len(challenge) == 0 {
		return nil, protocolErrorf("CHAP_C is no binary value of 1 to %d bytes", pdu.MaxCHAPBytes)
	}
	proof := x.algorithm.Response(byte(id), x.own.Secret, challenge)
	keys := []pdu.KeyValue{
		{Key: pdu.KeyCHAPName, Value: x.own.User},
		{Key: pdu.KeyCHAPResponse, Value: pdu.FormatBinary(proof)},
	}
	if !x.mutual {
		return keys, nil
	}
	fresh := make([]byte, 1+x.algorithm.ChallengeBytes())
	rand.Read(fresh) // never fails: crypto/rand ends the process instead
	x.id, x.challenge = fresh[0], fresh[1:]
	return append(keys,
		pdu.KeyValue{Key: pdu.KeyCHAPIdentifier, Value: strconv.Itoa(int(x.id))},
		pdu.KeyValue{Key: pdu.KeyCHAPChallenge, Value: pdu.FormatBinary(x.challenge)}), nil
}

// verify checks the target's own proof when mutual authentication was asked for. Our
// challenge is new each time and the two secrets differ, so a reflected answer fails.
func (x *chapExchange) verify(got []pdu.KeyValue) error {
	name, hasName := pdu.Find(got, pdu.KeyCHAPName)
	text, hasResponse := pdu.Find(got, pdu.KeyCHAPResponse)
	if !hasName || !hasResponse {
		return errTargetUnproven("it sent no CHAP_N and CHAP_R")
	}
	response, err := pdu.ParseBinary(text, pdu.MaxCHAPBytes)
	if err != nil {
		return errTargetUnproven("its CHAP_R is malformed")
	}
	if !x.algorithm.Verify(response, x.id, x.peer.Secret, x.challenge) {
		return errTargetUnproven("its response does not match the target's secret")
	}
	if x.peer.User != "" && name != x.peer.User {
		return errTargetUnproven("it calls itself by another CHAP name")
	}
	return nil
}

func errTargetUnproven(why string) error {
	return san.Errorf(san.KindUnauthenticated, "the target did not prove itself by mutual CHAP: %s; check the target's secret, and that this is the right target", why)
}
