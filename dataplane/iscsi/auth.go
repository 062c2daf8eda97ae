package iscsi

import (
	"crypto/subtle"
	"strconv"
	"strings"

	"github.com/sandbar-san/sandbar/internal/pdu"
)

const methodCHAP = "CHAP"

// authState is how far the authentication has come.
type authState uint8

const (
	authStart     authState = iota // nothing yet; AuthMethod decides
	authAlgorithm                  // CHAP chosen; CHAP_A comes next
	authResponse                   // challenged; CHAP_N and CHAP_R come next
)

// authenticator is the target's side of the security stage: none, or CHAP with MD5 or
// SHA-256, one-way or mutual (RFC 7143 §12.1).
type authenticator struct {
	random func([]byte)
	// lookup is nil where no CHAP is asked for, and so none can be done.
	lookup func(user string) []CHAP
	// required says that a login must not get on without it. It is cleared by success.
	required bool
	// done says that the security stage may be left.
	done  bool
	state authState

	algorithm  pdu.CHAPAlgorithm
	identifier uint8
	challenge  []byte
}

func newAuthenticator(random func([]byte), lookup func(string) []CHAP, required bool) authenticator {
	return authenticator{random: random, lookup: lookup, required: required}
}

// step takes the keys of one request in the security stage and returns the answers;
// transit says that the initiator wants to leave the stage.
func (a *authenticator) step(keys []pdu.KeyValue, transit bool) ([]pdu.KeyValue, error) {
	switch a.state {
	case authAlgorithm:
		return a.challengeIt(keys)
	case authResponse:
		return a.judge(keys)
	}
	offer, ok := pdu.Find(keys, pdu.KeyAuthMethod)
	if !ok {
		// An initiator that offers nothing accepts None (RFC 7143 §6.3.2).
		a.done = transit && !a.required
		return nil, nil
	}
	hasCHAP, hasNone := false, false
	for _, m := range strings.Split(offer, ",") {
		hasCHAP = hasCHAP || m == methodCHAP
		hasNone = hasNone || m == pdu.AnswerNone
	}
	switch {
	case hasCHAP && a.lookup != nil:
		a.state = authAlgorithm
		return []pdu.KeyValue{{Key: pdu.KeyAuthMethod, Value: methodCHAP}}, nil
	case hasNone && !a.required:
		a.done = true
		return []pdu.KeyValue{{Key: pdu.KeyAuthMethod, Value: pdu.AnswerNone}}, nil
	}
	return nil, refuse(pdu.LoginAuthFailure, "authentication methods %.64q offered; CHAP required: %v", offer, a.required)
}

func (a *authenticator) challengeIt(keys []pdu.KeyValue) ([]pdu.KeyValue, error) {
	offer, _ := pdu.Find(keys, pdu.KeyCHAPAlgorithm)
	alg, ok := pdu.ChooseCHAPAlgorithm(offer, pdu.CHAPMD5, pdu.CHAPSHA256)
	if !ok {
		return nil, refuse(pdu.LoginAuthFailure, "CHAP algorithms %.64q offered; 5 (MD5) and 7 (SHA-256) are supported", offer)
	}
	seed := make([]byte, 1+alg.ChallengeBytes())
	a.random(seed)
	a.algorithm, a.identifier, a.challenge, a.state = alg, seed[0], seed[1:], authResponse
	return []pdu.KeyValue{
		{Key: pdu.KeyCHAPAlgorithm, Value: strconv.Itoa(int(alg))},
		{Key: pdu.KeyCHAPIdentifier, Value: strconv.Itoa(int(a.identifier))},
		{Key: pdu.KeyCHAPChallenge, Value: pdu.FormatBinary(a.challenge)},
	}, nil
}

// judge checks the initiator's response and, where asked, gives the target's own.
func (a *authenticator) judge(keys []pdu.KeyValue) ([]pdu.KeyValue, error) {
	user, hasUser := pdu.Find(keys, pdu.KeyCHAPName)
	answer, hasAnswer := pdu.Find(keys, pdu.KeyCHAPResponse)
	if !hasUser || !hasAnswer {
		return nil, refuse(pdu.LoginMissingParameter, "CHAP_N or CHAP_R is missing")
	}
	response, err := pdu.ParseBinary(answer, pdu.MaxCHAPBytes)
	if err != nil {
		return nil, refuse(pdu.LoginAuthFailure, "CHAP_R: %w", err)
	}
	creds, right := a.match(a.lookup(user), response)
	if !right {
		return nil, refuse(pdu.LoginAuthFailure, "CHAP user %.64q or its secret is wrong", user)
	}
	answers, err := a.prove(keys, creds)
	if err != nil {
		return nil, err
	}
	a.done, a.required = true, false
	return answers, nil
}

// match finds the credentials that a response was made with.
func (a *authenticator) match(known []CHAP, response []byte) (creds CHAP, right bool) {
	if len(known) == 0 {
		known = []CHAP{{}} // an unknown user costs the same time as a wrong secret
	}
	for _, c := range known { // all of them, whichever is right
		if a.algorithm.Verify(response, a.identifier, c.Secret, a.challenge) && c.Secret != "" {
			creds, right = c, true
		}
	}
	return creds, right
}

// prove answers the initiator's own challenge, if it sent one.
func (a *authenticator) prove(keys []pdu.KeyValue, creds CHAP) ([]pdu.KeyValue, error) {
	id, hasID := pdu.Find(keys, pdu.KeyCHAPIdentifier)
	text, hasChallenge := pdu.Find(keys, pdu.KeyCHAPChallenge)
	if !hasID && !hasChallenge {
		return nil, nil
	}
	n, err := strconv.ParseUint(id, 0, 8)
	if err != nil {
		return nil, refuse(pdu.LoginAuthFailure, "CHAP_I=%.16q is no number from 0 to 255", id)
	}
	challenge, err := pdu.ParseBinary(text, pdu.MaxCHAPBytes)
	switch {
	case err != nil || len(challenge) == 0:
		return nil, refuse(pdu.LoginAuthFailure, "CHAP_C is no challenge: %v", err)
	case creds.MutualSecret == "":
		return nil, refuse(pdu.LoginAuthFailure, "the initiator asks the target to authenticate itself, but no mutual secret is set")
	case subtle.ConstantTimeCompare(challenge, a.challenge) == 1:
		// Sending our challenge back is an attack (RFC 7143 §9.2.1).
		return nil, refuse(pdu.LoginAuthFailure, "the initiator's challenge is the target's own")
	}
	return []pdu.KeyValue{
		{Key: pdu.KeyCHAPName, Value: creds.MutualUser},
		{Key: pdu.KeyCHAPResponse, Value: pdu.FormatBinary(a.algorithm.Response(uint8(n), creds.MutualSecret, challenge))},
	}, nil
}
