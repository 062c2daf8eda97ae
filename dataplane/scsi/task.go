package scsi

import (
	"context"
	"errors"

	"github.com/sandbar-san/sandbar/dataplane/disk"
	"github.com/sandbar-san/sandbar/internal/cdb"
	"github.com/sandbar-san/sandbar/san"
)

// MaxTransferBytes is the most data that one command may move in either direction; the
// block limits VPD page tells it to initiators. COMPARE AND WRITE carries its data
// twice and has a limit of its own, far below.
const MaxTransferBytes = 32 << 20

// Task is one command as the transport received it.
type Task struct {
	// Nexus is the I_T nexus that sent it, from OpenNexus.
	Nexus *Nexus
	// LUN is the addressed logical unit in SAM-5 §4.7 form, 8 bytes big-endian.
	LUN uint64
	// CDB has at least the length of its operation code; longer is cut.
	CDB []byte
	// DataOut is all the data that came, at most the expected data transfer length. It
	// must not change before Execute returns, and is not kept.
	DataOut []byte
	// DataInLimit is the expected data transfer length of a read, in bytes; a negative one counts as 0.
	DataInLimit int
	// Tag is the transport's task tag; it appears in logs of defects only.
	Tag uint32
}

// Result is the answer to a Task.
type Result struct {
	// Status is a status code (SAM-5 §5.3.1). TASK ABORTED means that the context ended
	// before the command had any effect.
	Status byte
	// Sense is fixed-format sense data, nil without CHECK CONDITION.
	Sense []byte
	// DataIn is at most Task.DataInLimit bytes; it is valid until Release.
	DataIn []byte
	// DataInTotal is how long the data in is without DataInLimit (but within the CDB's
	// allocation length): larger than the limit means residual overflow, smaller underflow.
	DataInTotal int
	// DataOutTotal is how much data out the CDB asks for: larger than the expected data
	// transfer length means residual overflow, smaller underflow.
	DataOutTotal int
	// Release gives DataIn back. Call it once, when DataIn has been sent; it is never nil.
	Release func()
}

// request is a Task on its way through the device server.
type request struct {
	*Task
	ctx context.Context
	// block is decoded for block commands (command.block).
	block cdb.Block
}

// released is the Release of a Result that holds no pooled buffer.
func released() {}

func good() Result { return Result{Status: cdb.StatusGood} }

// check makes a CHECK CONDITION of a key and code.
func check(key cdb.SenseKey, asc cdb.ASC) Result {
	return checkSense(cdb.Sense{Key: key, ASC: asc})
}

func checkSense(s cdb.Sense) Result {
	return Result{Status: cdb.StatusCheckCondition, Sense: s.Fixed()}
}

// badCDB refuses a field of the CDB; bit is -1 for whole bytes.
func badCDB(byteNo, bit int) Result {
	return checkSense(cdb.Sense{Key: cdb.KeyIllegalRequest, ASC: cdb.ASCInvalidFieldInCDB}.FieldPointer(byteNo, bit, false))
}

// badParameter refuses a field of the parameter list.
func badParameter(byteNo int) Result {
	return checkSense(cdb.Sense{Key: cdb.KeyIllegalRequest, ASC: cdb.ASCInvalidFieldInParameterList}.FieldPointer(byteNo, -1, true))
}

// invalidOpcode refuses an operation code or service action that does not exist here.
func invalidOpcode() Result { return check(cdb.KeyIllegalRequest, cdb.ASCInvalidOpcode) }

// decodeFailed answers an error of package cdb.
func decodeFailed(err error) Result {
	var field *cdb.FieldError
	var short *cdb.LengthError
	var descriptor *cdb.DescriptorError
	switch {
	case errors.As(err, &field) && field.InData:
		return badParameter(field.Byte)
	case errors.As(err, &field):
		return badCDB(field.Byte, field.Bit)
	case errors.As(err, &descriptor):
		return checkSense(cdb.Sense{Key: cdb.KeyIllegalRequest, ASC: descriptor.ASC}.FieldPointer(descriptor.Byte, -1, true))
	case errors.As(err, &short):
		return check(cdb.KeyIllegalRequest, cdb.ASCParameterListLength)
	}
	return check(cdb.KeyIllegalRequest, cdb.ASCInvalidFieldInCDB)
}

func aborted() Result { return Result{Status: cdb.StatusTaskAborted} }

// storeFailed answers an error of the Store; asc is the medium error's code.
func storeFailed(err error, asc cdb.ASC) Result { return checkOrAbort(storeSense(err, asc)) }

func checkOrAbort(s cdb.Sense, stopped bool) Result {
	if stopped {
		return aborted()
	}
	return checkSense(s)
}

// storeSense is the sense data of a Store's error, unless it says that the command was stopped.
func storeSense(err error, asc cdb.ASC) (s cdb.Sense, stopped bool) {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return s, true
	case errors.Is(err, disk.ErrNoSpace), san.KindOf(err) == san.KindNoSpace:
		return cdb.Sense{Key: cdb.KeyDataProtect, ASC: cdb.ASCSpaceAllocationFailed}, false
	case errors.Is(err, disk.ErrReadOnly):
		return cdb.Sense{Key: cdb.KeyDataProtect, ASC: cdb.ASCWriteProtected}, false
	}
	return cdb.Sense{Key: cdb.KeyMediumError, ASC: asc}, false
}

// writeFailed answers a failed write, zeroing or flush.
func writeFailed(err error) Result { return storeFailed(err, cdb.ASCWriteError) }

// readFailed answers a failed read.
func readFailed(err error) Result { return storeFailed(err, cdb.ASCUnrecoveredReadError) }

// miscompare says that the bytes differ first at offset.
func miscompare(offset int) Result {
	return checkSense(cdb.Sense{Key: cdb.KeyMiscompare, ASC: cdb.ASCMiscompareDuringVerify,
		Information: uint64(offset), InformationValid: true})
}

// parameterData answers with data cut to the allocation length and to what the
// transport expects. SPC-4 §4.2.5.6: the cut of the allocation length is no error and no residual.
func (r *request) parameterData(data []byte, allocation int) Result {
	data = data[:min(len(data), allocation)]
	total := len(data)
	return Result{Status: cdb.StatusGood, DataIn: data[:min(total, r.inLimit())], DataInTotal: total}
}

// inLimit is DataInLimit, never negative.
func (r *request) inLimit() int { return max(0, r.DataInLimit) }
