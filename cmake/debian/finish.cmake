# Run by CPack when a package's files are together: what debhelper would do to them. Manual pages and changelogs are
# compressed, modes do not depend on the builder's umask, and every file has the one date (reproducible-builds.org).
#
# In:  CPACK_TEMPORARY_DIRECTORY   where the files are
#      CPACK_EVAPID_EPOCH          the date, in seconds since 1970

file(GLOB_RECURSE changelogs ${CPACK_TEMPORARY_DIRECTORY}/*/usr/share/doc/*/CHANGELOG.md)
foreach(changelog IN LISTS changelogs) # Debian's name for it
    get_filename_component(folder ${changelog} DIRECTORY)
    file(RENAME ${changelog} ${folder}/changelog)
endforeach()

file(GLOB_RECURSE compressed
    ${CPACK_TEMPORARY_DIRECTORY}/*/usr/share/man/man*/*.[1-8]
    ${CPACK_TEMPORARY_DIRECTORY}/*/usr/share/doc/*/changelog
    ${CPACK_TEMPORARY_DIRECTORY}/*/usr/share/doc/*/changelog.Debian)
if(NOT compressed)
    message(FATAL_ERROR "No changelog below ${CPACK_TEMPORARY_DIRECTORY}: the packages would not be whole")
endif()
execute_process(COMMAND gzip -9nf ${compressed} COMMAND_ERROR_IS_FATAL ANY)

execute_process(COMMAND chmod -R u+rwX,go+rX,go-w ${CPACK_TEMPORARY_DIRECTORY} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND find ${CPACK_TEMPORARY_DIRECTORY} -exec touch -h -d @${CPACK_EVAPID_EPOCH} {} +
    COMMAND_ERROR_IS_FATAL ANY)
