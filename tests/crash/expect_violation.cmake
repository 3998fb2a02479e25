# Passes when PROGRAM exits with 1 (a violation) and says so: a mutant that crashes, or that nobody notices, fails.
execute_process(COMMAND ${PROGRAM} ${ARGUMENTS} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
message("${output}")
if(NOT status STREQUAL "1" OR NOT output MATCHES "VIOLATION")
  message(FATAL_ERROR "expected a violation and exit status 1, got ${status}")
endif()
