# Where the module's headers and compile flags come from.
#
# In:  KAMAILIO_SOURCE_DIR       a source tree that the user names, or empty
#      KAMAILIO_SOURCE_CACHE     where fetched trees are kept, outside any build so that builds share them
# Out: KAMAILIO_INCLUDE_DIR      the tree's src folder
#      KAMAILIO_FLAGS_FILE       a response file with the defines and options that the module must be compiled with
#      KAMAILIO_EXECUTABLE       the installed kamailio, or a false value
#      KAMAILIO_PACKAGE_VERSION  that of the Debian package whose source the tree is, unless the user gives another, or empty
#
# A module is loaded only by a Kamailio of the same version that was compiled with the same flags, so the source must be
# the installed one's. The folder cmake/ holds this and the scripts that the build runs; nothing in it is installed.

find_program(KAMAILIO_EXECUTABLE kamailio PATHS /usr/sbin /usr/local/sbin)

set(_cache_home "$ENV{XDG_CACHE_HOME}")
if(NOT _cache_home AND NOT "$ENV{HOME}" STREQUAL "")
    set(_cache_home "$ENV{HOME}/.cache")
elseif(NOT _cache_home)
    set(_cache_home "${PROJECT_BINARY_DIR}/cache")
endif()
set(KAMAILIO_SOURCE_CACHE "${_cache_home}/evapid" CACHE PATH "Where fetched Kamailio source trees are kept")

# A message that begins with a space is printed on one line, as it is.
set(_remedy "give -DKAMAILIO_SOURCE_DIR=DIR, or build without the module: -DEVAPID_BUILD_MODULE=OFF")

set(_installed_version "")
if(KAMAILIO_EXECUTABLE)
    execute_process(COMMAND ${KAMAILIO_EXECUTABLE} -v OUTPUT_VARIABLE _output ERROR_QUIET)
    if(_output MATCHES "version: kamailio ([^ \n]+)")
        set(_installed_version "${CMAKE_MATCH_1}")
    endif()
    # An upgrade of Kamailio configures anew: other source, other flags.
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${KAMAILIO_EXECUTABLE}")
endif()

# ---- the tree

if(KAMAILIO_SOURCE_DIR)
    get_filename_component(_tree "${KAMAILIO_SOURCE_DIR}" ABSOLUTE)
    if(NOT EXISTS "${_tree}/src/core/sr_module.h")
        message(FATAL_ERROR " KAMAILIO_SOURCE_DIR: ${_tree} is not a Kamailio source tree (no src/core/sr_module.h)")
    endif()
    if(EXISTS "${_tree}/debian/changelog") # a source package of Debian's
        execute_process(COMMAND dpkg-parsechangelog -l "${_tree}/debian/changelog" -S Version
            OUTPUT_VARIABLE _binary_version ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    endif()
else()
    execute_process(COMMAND dpkg-query -W -f "\${source:Version}" kamailio
        OUTPUT_VARIABLE _package_version ERROR_QUIET RESULT_VARIABLE _result)
    execute_process(COMMAND dpkg-query -W -f "\${Version}" kamailio OUTPUT_VARIABLE _binary_version ERROR_QUIET)
    if(NOT _result EQUAL 0 OR NOT _package_version)
        message(FATAL_ERROR " No Debian package kamailio is installed whose source could be fetched: ${_remedy}")
    endif()
    string(REPLACE ":" "_" _package_version "${_package_version}")
    set(_tree "${KAMAILIO_SOURCE_CACHE}/kamailio-${_package_version}")
    if(NOT EXISTS "${_tree}/src/config.mak")
        message(STATUS "Fetching the source of kamailio ${_package_version} into ${_tree}")
        execute_process(COMMAND ${CMAKE_CURRENT_LIST_DIR}/fetch-kamailio-source "${_tree}"
            ERROR_VARIABLE _reason RESULT_VARIABLE _result)
        if(NOT _result EQUAL 0)
            string(STRIP "${_reason}" _reason)
            string(REPLACE "\n" "; " _reason "${_reason}")
            message(FATAL_ERROR " No source of Kamailio (${_reason}): ${_remedy}")
        endif()
    endif()
endif()
set(KAMAILIO_INCLUDE_DIR "${_tree}/src")
if(NOT KAMAILIO_PACKAGE_VERSION)
    set(KAMAILIO_PACKAGE_VERSION "${_binary_version}")
endif()

# ---- its flags

set(_config "${_tree}/src/config.mak")
if(NOT EXISTS "${_config}")
    # The user's tree may be read-only or a git checkout: leave it as it is, and configure a copy.
    set(_config "${PROJECT_BINARY_DIR}/kamailio-config/config.mak")
    if(NOT EXISTS "${_config}" OR "${_tree}/src/Makefile.defs" IS_NEWER_THAN "${_config}")
        message(STATUS "Configuring a copy of ${_tree}")
        execute_process(
            COMMAND ${CMAKE_CURRENT_LIST_DIR}/configure-kamailio "${_tree}/src" "${_config}"
            ERROR_VARIABLE _reason RESULT_VARIABLE _result)
        if(NOT _result EQUAL 0)
            string(STRIP "${_reason}" _reason)
            message(FATAL_ERROR " `make -C ${_tree}/src FLAVOUR=kamailio cfg` is needed and failed: ${_reason}")
        endif()
    endif()
endif()
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${_config}")

file(STRINGS "${_config}" _defs REGEX "^C_DEFS=")
file(STRINGS "${_config}" _mutex REGEX "^CC_PMUTEX_OPTS=")
string(REGEX REPLACE "^C_DEFS= *" "" _defs "${_defs}")
string(REGEX REPLACE "^CC_PMUTEX_OPTS= *" "" _mutex "${_mutex}")
if(NOT _defs MATCHES "-DVERSION='\"([^\"]+)\"'")
    message(FATAL_ERROR " ${_config}: no C_DEFS with a VERSION; `make -C ${_tree}/src FLAVOUR=kamailio cfg` writes it")
endif()
set(_source_version "${CMAKE_MATCH_1}")

if(EVAPID_CHECK_MODULE AND _installed_version AND NOT _source_version STREQUAL _installed_version)
    message(FATAL_ERROR " ${_tree} is Kamailio ${_source_version}, and ${KAMAILIO_EXECUTABLE} is ${_installed_version}: "
        "it would refuse the module (-DEVAPID_CHECK_MODULE=OFF builds it for another Kamailio)")
endif()

set(KAMAILIO_FLAGS_FILE "${PROJECT_BINARY_DIR}/kamailio-flags.rsp")
set(_flags "${_defs} ${_mutex}\n")
set(_written "")
if(EXISTS "${KAMAILIO_FLAGS_FILE}")
    file(READ "${KAMAILIO_FLAGS_FILE}" _written)
endif()
if(NOT _written STREQUAL _flags) # objects depend on the file: touch it only when it changes
    file(WRITE "${KAMAILIO_FLAGS_FILE}" "${_flags}")
endif()
message(STATUS "Kamailio ${_source_version}, headers in ${KAMAILIO_INCLUDE_DIR}")
