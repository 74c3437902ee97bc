package protocol

import "slices"

// ErrorCode says to programs why a command failed. The list is closed.
type ErrorCode string

// The error codes.
const (
	InvalidMessage   ErrorCode = "invalid_message"
	WrongProject     ErrorCode = "wrong_project"
	CommandIDReused  ErrorCode = "command_id_reused"
	RepoMissing      ErrorCode = "repo_missing"
	RepoNotAllowed   ErrorCode = "repo_not_allowed"
	RepoUnreachable  ErrorCode = "repo_unreachable"
	RepoAuth         ErrorCode = "repo_auth"
	MergeConflict    ErrorCode = "merge_conflict"
	AgentFailed      ErrorCode = "agent_failed"
	AgentTimeout     ErrorCode = "agent_timeout"
	AgentStalled     ErrorCode = "agent_stalled"
	AgentTurnLimit   ErrorCode = "agent_turn_limit"
	AgentCostLimit   ErrorCode = "agent_cost_limit"
	AgentRefused     ErrorCode = "agent_refused"
	PromptTooLong    ErrorCode = "agent_prompt_too_long"
	AgentMissing     ErrorCode = "agent_missing"
	ModelOverloaded  ErrorCode = "model_overloaded"
	ModelAuth        ErrorCode = "model_auth"
	ModelCredit      ErrorCode = "model_credit"
	BuildFailed      ErrorCode = "build_failed"
	BuildTimeout     ErrorCode = "build_timeout"
	BuildOutOfMemory ErrorCode = "build_out_of_memory"
	InstallFailed    ErrorCode = "install_failed"
	DeployFailed     ErrorCode = "deploy_failed"
	DeployRefused    ErrorCode = "deploy_refused"
	PushFailed       ErrorCode = "push_failed"
	FileTooLarge     ErrorCode = "file_too_large"
	Interrupted      ErrorCode = "interrupted"
	Internal         ErrorCode = "internal"
)

// ErrorCodes returns the whole list.
func ErrorCodes() []ErrorCode {
	return []ErrorCode{
		InvalidMessage, WrongProject, CommandIDReused, RepoMissing, RepoNotAllowed, RepoUnreachable, RepoAuth, MergeConflict,
		AgentFailed, AgentTimeout, AgentStalled, AgentTurnLimit, AgentCostLimit, AgentRefused, PromptTooLong, AgentMissing,
		ModelOverloaded, ModelAuth, ModelCredit, BuildFailed, BuildTimeout, BuildOutOfMemory, InstallFailed,
		DeployFailed, DeployRefused, PushFailed, FileTooLarge, Interrupted, Internal,
	}
}

// Valid reports whether the code is in the list.
func (c ErrorCode) Valid() bool { return slices.Contains(ErrorCodes(), c) }
