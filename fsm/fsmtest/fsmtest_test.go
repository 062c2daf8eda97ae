package fsmtest

import (
	"flag"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write down what the transcripts answer now")

func TestTranscripts(t *testing.T) { Transcripts(t, *rewrite) }
